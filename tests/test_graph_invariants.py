"""The invariants that speak of graphs and engines, for every family, on real exports and builds."""

from __future__ import annotations

import pytest
import torch
from subjects import EACH, relative, run, subject_of

from f3prune.core.errors import ArtifactError, BackendError
from f3prune.engines import BuildConfig, build_engine, open_session
from f3prune.exporter import ExportConfig, export_denoiser, flatten_arguments
from f3prune.testing import VARIANTS
from tests.exports import exported

# An export takes seconds. Every family is exported fully local and with dropped heads; one of each layout, and the two
# with projections of their own kind, in all units.
ALL_UNITS = ("latte", "cogvideox", "ltx", "hunyuan_video")
# Built of the blocks of a family that is exported in more: these are exported dense and fully local alone.
LIKE_OTHERS = (
    "wan_vace",
    "wan_animate",
    "chronoedit",
    "anyflow",
    "helios",
    "consisid",
    "easyanimate",
    "cosmos",
    "cosmos-2.5",
)

ALWAYS = {("layer", "local"), ("head", "drop"), ("layer", "static"), ("layer", "pooled")}
QUICK = {v: {each[1:] for each in EACH if each[0] == v} for v in ("latte", "cogvideox")} | {
    "animatediff": {("layer", "static")}
}
SLOW = pytest.mark.slow(reason="units and modes that two other variants are exported in")
EXPORTED = [
    pytest.param(*each, marks=[] if each[1:] in QUICK.get(each[0], ALWAYS) else SLOW)
    for each in EACH
    if each[0] in ALL_UNITS or each[1:] in (ALWAYS if each[0] not in LIKE_OTHERS else {("layer", "local")})
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
            model = subject.pruned(ALPHA[granularity], granularity, mode)
            masks = subject.masks(ALPHA[granularity], granularity, mode).digest
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
            (output,) = session.run(flatten_arguments(inputs).tensors).values()
            assert relative(output, run(pruned, inputs)) < 1e-4, batch


@pytest.mark.parametrize("variant", VARIANTS)
def test_5_a_fully_pruned_graph_has_lost_its_sites(exports, variant):
    subject = subject_of(variant)
    dense, local = exports.get(variant)[0].facts, exports.get(variant, "layer", "local")[0].facts
    softmax = dense.operators["Softmax"] - len(subject.calibration.sites)
    if subject.family.layout == "temporal":
        assert local.operators.get("Softmax", 0) == softmax
        assert local.nodes < dense.nodes
        assert local.parameters < dense.parameters
    if variant in LIKE_OTHERS:
        return
    fewer_heads = exports.get(variant, "head", "drop")[0].facts
    assert fewer_heads.parameters < dense.parameters
    if variant in ALL_UNITS:
        dropped = exports.get(variant, "layer", "drop")[0].facts
        assert dropped.operators.get("Softmax", 0) == softmax
        assert dropped.nodes < dense.nodes
        assert dropped.parameters < fewer_heads.parameters


BUILT = [
    *(pytest.param(variant, "layer", "local", id=f"{variant}-layer-local") for variant in VARIANTS),
    *(
        pytest.param(
            variant,
            "head",
            "drop",
            id=f"{variant}-head-drop",
            marks=pytest.mark.slow(reason="another build of each variant"),
        )
        for variant in VARIANTS
        if variant not in LIKE_OTHERS
    ),
]


@pytest.mark.parametrize(("variant", "granularity", "mode"), BUILT)
def test_4_tensorrt_rtx_builds_the_pruned_graph(exports, variant, granularity, mode, tmp_path):
    """A real ahead-of-time build; without a driver the engine then says in one line why it cannot run."""
    result, _, masks = exports.get(variant, granularity, mode)
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
    result, _, masks = exports.get(variant, "layer", "local")
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
