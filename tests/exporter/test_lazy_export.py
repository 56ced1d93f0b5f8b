"""Large models: weights go from file to file one at a time, and nothing else changes."""

from __future__ import annotations

import copy
import hashlib
import weakref

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file as reference_save
from subjects import run, subject_of
from torch import nn

from f3prune.calibration import load_pruned, prune_denoiser, save_pruned
from f3prune.core.errors import InputError
from f3prune.core.weights import LazyTensor, lazy_weights, read_lazily, save_streaming
from f3prune.exporter import ExportConfig, export_denoiser
from f3prune.pipelines.loading import load_denoiser, stored_dtype
from f3prune.pipelines.sources import resolve

CASES = [
    ("cogvideox", "head", "local"),
    ("cogvideox", "layer", "drop"),
    ("wan", "head", "drop"),
    ("latte", "layer", "local"),
    ("latte", "head", "local"),
    ("hunyuan_video", "layer", "drop"),
]


class Alive:
    """Counts the bytes of weights that are in memory at one time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.reads = 0
        original = LazyTensor.value

        def value(tensor: LazyTensor) -> torch.Tensor:
            made = original(tensor)
            size = made.untyped_storage().nbytes()
            self.now += size
            self.reads += 1
            self.most = max(self.most, self.now)
            weakref.finalize(made, self._gone, size)
            return made

        monkeypatch.setattr(LazyTensor, "value", value)

    def _gone(self, size: int) -> None:
        self.now -= size


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def stored(tmp_path):
    """``stored(variant, dtype)``: the directory of a tiny dense denoiser, as diffusers saves it."""

    def save(variant: str, dtype: torch.dtype = torch.float32):
        folder = tmp_path / f"dense-{variant}"
        subject = subject_of(variant)
        copy.deepcopy(subject.denoiser).to(dtype).save_pretrained(folder)
        return resolve(str(folder))

    return save


def is_lazy(module: torch.nn.Module) -> bool:
    return next(lazy_weights(module), None) is not None


@pytest.mark.parametrize(("variant", "granularity", "mode"), CASES)
def test_streamed_pruning_gives_the_same_files(variant, granularity, mode, stored, tmp_path):
    source, masks = stored(variant), subject_of(variant).masks(0.5, granularity, mode)
    for how, lazy in (("eager", False), ("lazy", True)):
        denoiser = load_denoiser(source, lazy=lazy)
        assert is_lazy(denoiser) == lazy
        denoiser.register_to_config(_name_or_path="")
        save_pruned(prune_denoiser(denoiser, masks), tmp_path / how)
    assert digests(tmp_path / "lazy") == digests(tmp_path / "eager")


@pytest.mark.slow(reason="exports each model twice")
@pytest.mark.parametrize(("variant", "dtype"), [("cogvideox", "fp16"), ("wan", "bf16")])
def test_streamed_export_gives_the_same_files(variant, dtype, tmp_path):
    save_pruned(subject_of(variant).pruned(0.5, "head"), tmp_path / "pruned")
    for how, lazy in (("eager", False), ("lazy", True)):
        loaded = load_pruned(tmp_path / "pruned", torch.float32, lazy=lazy)
        assert is_lazy(loaded) == lazy
        config = ExportConfig(dtype=dtype, self_test=False)
        export_denoiser(loaded, subject_of(variant).inputs, tmp_path / how, config)
    assert digests(tmp_path / "lazy") == digests(tmp_path / "eager")


def test_one_weight_is_in_memory_at_a_time(stored, tmp_path, monkeypatch):
    source, subject = stored("cogvideox", torch.bfloat16), subject_of("cogvideox")
    alive = Alive(monkeypatch)
    denoiser = prune_denoiser(
        load_denoiser(source, stored_dtype(source), lazy=True), subject.masks(0.5, "head", "local")
    )
    assert alive.reads == 0
    save_pruned(denoiser, tmp_path / "pruned")
    pruned = load_pruned(tmp_path / "pruned", lazy=True)
    result = export_denoiser(pruned, subject.inputs, tmp_path / "onnx", ExportConfig(dtype="bf16", self_test_limit=1e3))
    assert result.self_test is None
    assert "more than 1000 (self_test_limit)" in result.to_json()["self_test_skipped"]
    largest = max(weight.nbytes for _, weight in lazy_weights(pruned))
    total = sum(weight.nbytes for _, weight in lazy_weights(pruned))
    assert alive.reads > 2 * len(list(lazy_weights(pruned)))
    assert alive.now == 0
    assert alive.most <= 3 * largest
    assert total > 6 * largest


def test_a_lazy_denoiser_runs(stored):
    source, subject = stored("wan"), subject_of("wan")
    with torch.inference_mode():
        lazy = run(load_denoiser(source, lazy=True), subject.inputs)
    assert torch.equal(lazy, run(load_denoiser(source), subject.inputs))


@pytest.mark.parametrize("variant", ["wan", "mochi", "modelscope"])
def test_lazy_random_weights_are_those_of_a_model_in_memory(variant, tmp_path):
    subject_of(variant).denoiser.save_config(tmp_path)
    source = resolve(str(tmp_path), random_weights=True, weights_seed=3)
    eager, lazy = load_denoiser(source), load_denoiser(source, lazy=True)
    for (name, here), (other, there) in zip(eager.state_dict().items(), lazy.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(here, there)
    assert {name for name, _ in lazy_weights(lazy)} == {name for name, _ in eager.named_parameters()}


def test_older_names_of_weights_are_left_to_diffusers(stored, monkeypatch):
    source = stored("cogvideox")
    dense = load_denoiser(source)
    (file,) = source.path.glob("*.safetensors")
    state = {name.replace("proj_out", "older"): value for name, value in load_file(file).items()}
    reference_save(state, file, metadata={"format": "pt"})

    def renamed(self, state_dict):
        for name in [name for name in state_dict if "older" in name]:
            state_dict[name.replace("older", "proj_out")] = state_dict.pop(name)

    monkeypatch.setattr(type(dense), "_fix_state_dict_keys_on_load", renamed)
    loaded = load_denoiser(source, lazy=True)
    assert not is_lazy(loaded)
    for name, value in dense.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_streamed_file_is_the_reference_librarys(tmp_path):
    shared = torch.randn(4, 6)
    tensors = {
        "matrix": torch.randn(5, 4),
        "half": torch.randn(8, 4).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "numbers": torch.arange(3),
        "scalar": torch.tensor(2.0),
        "nothing": torch.zeros(0, 3),
        "flags": torch.tensor([True, False, True]),
        "é": shared.t().contiguous(),
    }
    reference_save(tensors, tmp_path / "reference", metadata={"format": "pt"})
    save_streaming({**tensors, "é": shared.t()}, tmp_path / "streamed", {"format": "pt"})
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "reference").read_bytes()


def test_lazy_weights_refuse_to_change(tmp_path):
    reference_save({"w": torch.ones(3, 2)}, tmp_path / "file")
    weight = nn.Parameter(read_lazily(tmp_path / "file")["w"], requires_grad=False)
    taken = weight[torch.tensor([2, 0])].to(torch.float16)
    assert isinstance(taken, LazyTensor)
    assert torch.equal(taken.value(), torch.ones(2, 2).half())
    with pytest.raises(InputError, match="in place"):
        weight.mul_(2)
    reference_save({"w": torch.ones(2, 2)}, tmp_path / "file")
    with pytest.raises(InputError, match="replaced while it was in use"):
        weight.value()
