"""The stand-in inside an unmodified diffusers pipeline."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from diffusers import CogVideoXPipeline
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from onnx import numpy_helper
from torch.utils._python_dispatch import TorchDispatchMode

from f3prune.core.captured_calls import record_calls
from f3prune.core.errors import ArtifactError, InputError
from f3prune.engines import EngineDenoiser, Session, build_engine, open_session, parity
from f3prune.engines.denoiser import load_skeleton, output_class_of
from f3prune.engines.denoiser._refusals import WAYS as CHANGES
from f3prune.families import family_of
from f3prune.testing import VARIANTS, tiny_denoiser


@pytest.fixture(scope="module")
def engine(cogvideox: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engine")
    build_engine(cogvideox.onnx, directory)
    return directory


@pytest.fixture
def session(engine: Path) -> Iterator[Session]:
    with open_session(engine) as opened:
        yield opened


@pytest.fixture
def inputs(cogvideox: Any) -> dict[str, Any]:
    family = family_of(cogvideox.transformer)
    generator = torch.Generator().manual_seed(1)
    return family.synthetic_inputs(cogvideox.transformer, cogvideox.latents, 2, generator)


def test_a_pipeline_makes_the_same_video_on_the_engine(cogvideox: Any, session: Session) -> None:
    with torch.no_grad():
        expected = cogvideox.generate(cogvideox.pipeline(cogvideox.transformer))
        video = cogvideox.generate(cogvideox.pipeline(EngineDenoiser(cogvideox.config, session)))
    assert video.shape == expected.shape
    assert parity(expected, video).rel_l2 < 1e-4
    assert expected.std() > 0


def test_a_pipeline_without_guidance_runs_batch_one(cogvideox: Any, session: Session) -> None:
    pipeline = cogvideox.pipeline(cogvideox.transformer)
    with torch.no_grad():
        expected = cogvideox.generate(pipeline, guidance_scale=1.0)
        pipeline.transformer = EngineDenoiser(cogvideox.config, session)
        assert parity(expected, cogvideox.generate(pipeline, guidance_scale=1.0)).rel_l2 < 1e-4


def test_from_pretrained_takes_it_in_place_of_the_weights(cogvideox: Any, session: Session, tmp_path: Path) -> None:
    cogvideox.pipeline(cogvideox.transformer).save_pretrained(tmp_path)
    denoiser = EngineDenoiser(tmp_path / "transformer", session)
    for weights in (tmp_path / "transformer").glob("*.safetensors"):
        weights.unlink()
    pipeline = CogVideoXPipeline.from_pretrained(tmp_path, transformer=denoiser, tokenizer=None, text_encoder=None)
    assert pipeline.transformer is denoiser
    pipeline.to("cpu")
    assert pipeline.components["transformer"] is denoiser
    with pytest.raises(InputError, match="cannot be saved"):
        pipeline.save_pretrained(tmp_path / "again")


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_what_would_change_it_is_refused_with_the_way(cogvideox: Any, session: Session, name: str) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    with pytest.raises(InputError, match=rf"{name} cannot change an engine.*(calibrate\(|reuse\(|leave it out)"):
        getattr(denoiser, name)(None)


def test_every_change_that_diffusers_knows_is_refused() -> None:
    """Of the mixins of adapters, attention processors and caches; but for methods that only look or end something."""
    mixins = (PeftAdapterMixin, AttentionMixin, CacheMixin)
    methods = {name for mixin in mixins for name, value in vars(mixin).items() if inspect.isfunction(value)}
    public = {name for name in methods if not name.startswith("_")}
    assert public - set(CHANGES) == {"active_adapters", "cache_context", "disable_cache", "save_lora_adapter"}


def test_forward_takes_and_gives_what_the_original_does(
    cogvideox: Any, session: Session, inputs: dict[str, Any]
) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    with torch.no_grad():
        expected = cogvideox.transformer(**inputs).sample
    positional = denoiser(inputs["hidden_states"], inputs["encoder_hidden_states"], inputs["timestep"])
    assert isinstance(positional, Transformer2DModelOutput)
    assert parity(expected, positional.sample).rel_l2 < 1e-5
    pair = denoiser(**inputs, return_dict=False)
    assert isinstance(pair, tuple)
    assert torch.equal(pair[0], positional.sample)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        denoiser(**inputs, nonsense=1)
    with pytest.raises(TypeError, match="missing a required argument: 'timestep'"):
        denoiser(inputs["hidden_states"], inputs["encoder_hidden_states"])


def test_the_timestep_may_come_in_any_form(cogvideox: Any, session: Session, inputs: dict[str, Any]) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    reference = denoiser(**{**inputs, "timestep": torch.tensor([7, 7])}).sample
    for timestep in (7, 7.0, torch.tensor(7), torch.tensor(7.0), torch.tensor([7]), torch.tensor(7).expand(2)):
        assert torch.equal(denoiser(**{**inputs, "timestep": timestep}).sample, reference)
    with pytest.raises(InputError, match=r"passes 7\.5, no whole number"):
        denoiser(**{**inputs, "timestep": 7.5})
    with pytest.raises(InputError, match=r"the pipeline passes shape \[3\]|batch=3"):
        denoiser(**{**inputs, "timestep": torch.tensor([7, 7, 7])})


def test_latents_decide_the_dtype_of_the_output(cogvideox: Any, session: Session, inputs: dict[str, Any]) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    inputs["hidden_states"] = inputs["hidden_states"].half()
    assert denoiser(**inputs).sample.dtype == torch.float16


def test_another_size_says_what_the_engine_was_built_for(
    cogvideox: Any, session: Session, inputs: dict[str, Any]
) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    inputs["hidden_states"] = inputs["hidden_states"][:, :2]
    with pytest.raises(InputError, match=r"the engine was built for hidden_states float32\[batch, 3, "):
        denoiser(**inputs)


def test_arguments_the_graph_lacks_are_refused(cogvideox: Any, session: Session, inputs: dict[str, Any]) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    denoiser(**inputs, attention_kwargs={}, image_rotary_emb=None)
    rotary = (torch.zeros(4, 8), torch.zeros(4, 8))
    with pytest.raises(InputError, match=r"was exported without image_rotary_emb\.\d"):
        denoiser(**inputs, image_rotary_emb=rotary)
    with pytest.raises(InputError, match="was exported with attention_kwargs=None"):
        denoiser(**inputs, attention_kwargs={"scale": 0.5})


def test_pipelines_may_ask_for_anything_the_original_has(cogvideox: Any, session: Session) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    assert denoiser.dtype == torch.float32
    assert denoiser.device == torch.device("cpu")
    assert denoiser.config.patch_size == cogvideox.transformer.config.patch_size
    assert denoiser.patch_embed.text_proj.in_features == cogvideox.transformer.config.text_embed_dim
    assert list(denoiser.parameters()) == []
    assert denoiser.to("cpu", torch.float16) is denoiser
    with denoiser.cache_context("cond"):
        pass
    with pytest.raises(AttributeError):
        _ = denoiser.no_such_thing
    # Asked by SVD's pipeline of its denoiser.
    unet = tiny_denoiser("svd")
    stand_in = EngineDenoiser(unet, session)
    assert stand_in.add_embedding.linear_1.in_features == unet.add_embedding.linear_1.in_features


def test_stages_switch_by_timestep(cogvideox: Any, engine: Path, tmp_path: Path) -> None:
    late = copy.deepcopy(cogvideox.transformer)
    with torch.no_grad():
        late.proj_out.bias += 0.25
    model = onnx.load(str(cogvideox.onnx))
    (bias,) = [item for item in model.graph.initializer if item.name.endswith("proj_out.bias")]
    bias.CopyFrom(numpy_helper.from_array(late.proj_out.bias.detach().numpy(), bias.name))
    onnx.save(model, str(tmp_path / "denoiser.onnx"))
    build_engine(tmp_path / "denoiser.onnx", tmp_path / "late")
    early_session, late_session = open_session(engine), open_session(tmp_path / "late")

    class Staged(torch.nn.Module):
        config = cogvideox.transformer.config
        dtype, device = torch.float32, torch.device("cpu")
        cache_context = cogvideox.transformer.cache_context

        def forward(self, **inputs: Any) -> Any:
            chosen = cogvideox.transformer if float(inputs["timestep"][0]) >= 500 else late
            return chosen(**inputs)

    with torch.no_grad():
        expected = cogvideox.generate(cogvideox.pipeline(Staged()), steps=4)
        early_alone = cogvideox.generate(cogvideox.pipeline(cogvideox.transformer), steps=4)
    assert parity(expected, early_alone).rel_l2 > 1e-3
    stages = [(500.0, early_session), (0.0, late_session)]
    by_function = lambda timestep: early_session if timestep >= 500 else late_session  # noqa: E731
    for given in (stages, stages[::-1], by_function):
        denoiser = EngineDenoiser(cogvideox.config, given)
        video = cogvideox.generate(cogvideox.pipeline(denoiser), steps=4)
        assert parity(expected, video).rel_l2 < 1e-4
    denoiser = EngineDenoiser(cogvideox.config, stages)
    assert [denoiser.session_for(t) for t in (999, 500, 499, 0, -1)] == [early_session] * 2 + [late_session] * 3
    denoiser.close()
    with pytest.raises(InputError, match="is closed"):
        early_session.activate()
    for wrong in ([], [(1.0, early_session), (1.0, late_session)]):
        with pytest.raises(InputError, match="stages start at"):
            EngineDenoiser(cogvideox.config, wrong)


class _Operations(TorchDispatchMode):
    """The names of all operations of torch that run below it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(operation))
        return operation(*args, **(kwargs or {}))


def test_a_step_copies_nothing(
    cogvideox: Any, session: Session, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine reads the pipeline's own tensors and writes the tensor that is returned; torch only allocates it."""
    bound: dict[str, int] = {}
    for name in ("bind_input", "bind_output"):
        original = getattr(onnxruntime.IOBinding, name)

        def spy(binding: Any, tensor: str, *rest: Any, original: Any = original) -> None:
            bound[tensor] = rest[-1]
            original(binding, tensor, *rest)

        monkeypatch.setattr(onnxruntime.IOBinding, name, spy)
    denoiser = EngineDenoiser(cogvideox.config, session)
    read: dict[str, int] = {}
    for step in range(3):
        inputs["hidden_states"] = inputs["hidden_states"].clone()
        expected = {name: value.data_ptr() for name, value in inputs.items()}
        bound.clear()
        with _Operations() as operations:
            (sample,) = denoiser(**inputs, return_dict=False)
        assert operations.names == ["aten.empty.memory_format"]
        read.update(bound)
        assert read == {**expected, "sample": sample.data_ptr()}
        assert step == 0 or "encoder_hidden_states" not in bound


def test_plain_values_are_compared_at_every_step(cogvideox: Any, session: Session, inputs: dict[str, Any]) -> None:
    """What is kept of earlier calls must not let a call of another form pass."""
    denoiser = EngineDenoiser(cogvideox.config, session)
    for _ in range(2):
        reference = denoiser(**inputs, timestep_cond=None, attention_kwargs={}).sample
        with pytest.raises(InputError, match="was exported with attention_kwargs=None"):
            denoiser(**inputs, attention_kwargs={"scale": 0.5})
        with pytest.raises(InputError, match=r"passes 7\.5, no whole number"):
            denoiser(**{**inputs, "timestep": 7.5})
        one = {name: value[:1] for name, value in inputs.items()}
        assert parity(reference[:1], denoiser(**one).sample).rel_l2 < 1e-5


def test_calls_of_a_stand_in_can_be_recorded(cogvideox: Any, session: Session) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    calls = record_calls(denoiser, lambda: cogvideox.generate(cogvideox.pipeline(denoiser)))
    assert len(calls) == 2
    assert {"hidden_states", "encoder_hidden_states", "timestep"} <= set(calls[0][1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_has_a_weightless_skeleton(variant: str, tmp_path: Path) -> None:
    denoiser = tiny_denoiser(variant)
    denoiser.save_config(tmp_path)
    skeleton = load_skeleton(tmp_path)
    assert type(skeleton) is type(denoiser)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    outputs = {name: torch.full((1,), float(k)) for k, name in enumerate(family_of(denoiser).outputs)}
    made = output_class_of(type(denoiser))(**outputs)
    assert {name: made[name] for name in outputs} == outputs


def test_a_missing_or_foreign_configuration_is_refused(tmp_path: Path, session: Session) -> None:
    with pytest.raises(ArtifactError, match="no denoiser configuration"):
        EngineDenoiser(tmp_path, session)
    (tmp_path / "config.json").write_text('{"_class_name": "NoSuchModel"}')
    with pytest.raises(ArtifactError, match="names the class NoSuchModel"):
        EngineDenoiser(tmp_path, session)
