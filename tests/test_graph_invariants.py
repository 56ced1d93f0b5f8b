"""The invariants that speak of graphs and engines, for every family, on real exports and builds."""

from __future__ import annotations

import pytest
import torch
from subjects import EACH, relative, subject_of

from f3prune.core.calls import outputs_of
from f3prune.core.errors import ArtifactError, BackendError
from f3prune.engines import BuildConfig, build_engine, open_session
from f3prune.exporter import ExportConfig, export_denoiser, flatten_arguments
from f3prune.testing import VARIANTS
from tests.exports import exported

# An export takes seconds. Every family is exported fully local and with dropped heads; one of each layout, and the two
# with projections of their own kind, in all units.
ALL_UNITS = ("latte", "cogvideox", "ltx", "hunyuan_video")


FEW = ("hunyuan_video15", "ltx2", "kandinsky5", "framepack")
"""Exported dense and half pooled: families like them are exported in the other ways."""
ALWAYS = {("layer", "local"), ("head", "drop"), ("layer", "static"), ("layer", "pooled")}
QUICK = {v: {each[1:] for each in EACH if each[0] == v} for v in ("latte", "cogvideox")} | {
    "animatediff": {("layer", "static")}
}
SLOW = pytest.mark.slow(reason="units and modes that two other variants are exported in")
EXPORTED = [
    pytest.param(*each, marks=[] if each[1:] in QUICK.get(each[0], ALWAYS) else SLOW)
    for each in EACH
    if (each[0] in ALL_UNITS or each[1:] in ALWAYS) and (each[0] not in FEW or each[1:] == ("layer", "pooled"))
]
ALPHA = {"layer": 1.0, "head": 0.5, "frame-pair": 0.5}
PLAIN = ExportConfig(self_test=False)


class Exports:
    """Exported graphs of tiny denoisers, each made once."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}

    def get(self, variant, granularity=None, mode="local"):
        key = (variant, granularity, mode)
        if key not in self.made:
            if granularity is None:
                dense = exported(variant)
                self.made[key] = (dense.result, dense.denoiser, "")
                return self.made[key]
            subject = subject_of(variant)
            alpha = 0.5 if variant in FEW else ALPHA[granularity]
            model = subject.pruned(alpha, granularity, mode)
            masks = subject.masks(alpha, granularity, mode).digest
            where = self.folder / "-".join(map(str, key))
            self.made[key] = (export_denoiser(model, subject.inputs, where, PLAIN), model, masks)
        return self.made[key]


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    return Exports(tmp_path_factory.mktemp("exports"))


@pytest.mark.parametrize(("variant", "granularity", "mode"), EXPORTED)
def test_4_onnxruntime_equals_baked(exports, variant, granularity, mode, tmp_path):
    """fp32 within 1e-4, for the exported batch and, the batch being dynamic, for another; all attention fused."""
    subject = subject_of(variant)
    result, pruned, masks = exports.get(variant, granularity, mode)
    config = BuildConfig(cache=False, threads=1, batch=(1, 2, 3), fused_attention=1)
    record = build_engine(result.path, tmp_path, config, masks_digest=masks)
    attentions = record.built["attention_fused"] + record.built["attention_unfused"]
    assert attentions >= result.facts.operators.get("Softmax", 0)
    with open_session(tmp_path) as session:
        for batch in (2, 3):
            shape = _shape(variant)
            inputs = subject.family.synthetic_inputs(subject.denoiser, shape, batch, torch.Generator().manual_seed(7))
            outputs = session.run(flatten_arguments(inputs).tensors).values()
            with torch.no_grad():
                expected = outputs_of(pruned(**inputs, return_dict=False), subject.family.outputs)
            for output, wanted in zip(outputs, expected.values(), strict=True):
                assert relative(output, wanted) < 1e-4, batch


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant not in FEW])
def test_5_a_fully_pruned_graph_has_lost_its_sites(exports, variant):
    subject = subject_of(variant)
    dense, local = exports.get(variant)[0].facts, exports.get(variant, "layer", "local")[0].facts
    softmax = dense.operators["Softmax"] - len(subject.calibration.sites)
    if subject.family.layout == "temporal":
        assert local.operators.get("Softmax", 0) == softmax
        assert local.nodes < dense.nodes
        assert local.parameters < dense.parameters
    fewer_heads = exports.get(variant, "head", "drop")[0].facts
    assert fewer_heads.parameters < dense.parameters
    if variant in ALL_UNITS:
        dropped = exports.get(variant, "layer", "drop")[0].facts
        assert dropped.operators.get("Softmax", 0) == softmax
        assert dropped.nodes < dense.nodes
        assert dropped.parameters < fewer_heads.parameters


@pytest.mark.parametrize(
    ("granularity", "mode"),
    [("layer", "local"), pytest.param("head", "drop", marks=pytest.mark.slow(reason="another build of each variant"))],
)
@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant not in FEW])
def test_4_tensorrt_rtx_builds_the_pruned_graph(exports, variant, granularity, mode, tmp_path):
    """A real ahead-of-time build; without a driver the engine then says in one line why it cannot run."""
    _build_with_tensorrt_rtx(exports.get(variant, granularity, mode), tmp_path)


@pytest.mark.parametrize("variant", FEW)
def test_4_tensorrt_rtx_builds_a_partly_pruned_graph(exports, variant, tmp_path):
    """Layers that attend to everything, and pooled ones."""
    _build_with_tensorrt_rtx(exports.get(variant, "layer", "pooled"), tmp_path)


def _build_with_tensorrt_rtx(exported, tmp_path):
    result, _, masks = exported
    config = BuildConfig(backend="tensorrt-rtx", cache=False, compute_capabilities=("8.9",))
    record = build_engine(result.path, tmp_path, config, masks_digest=masks)
    assert record.masks_digest == masks
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 10_000
    if not torch.cuda.is_available():
        with pytest.raises(BackendError) as error, open_session(tmp_path):
            pass
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_6_an_engine_of_other_masks_or_altered_bytes_is_refused(exports, variant, tmp_path):
    result, _, masks = exports.get(variant, "layer", "pooled" if variant in FEW else "local")
    with pytest.raises(ArtifactError, match="masks"):
        build_engine(result.path, tmp_path, BuildConfig(cache=False), masks_digest="0" * 64)
    build_engine(result.path, tmp_path, BuildConfig(cache=False), masks_digest=masks)
    weights = max((f for f in tmp_path.iterdir() if f.suffix != ".json"), key=lambda f: f.stat().st_size)
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.unlink()
    weights.write_bytes(damaged)
    with pytest.raises(ArtifactError), open_session(tmp_path):
        pass


def _shape(variant):
    from f3prune.testing import TINY_SHAPES

    return TINY_SHAPES[variant]
