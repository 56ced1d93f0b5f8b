"""The invariants that speak of graphs and engines, for every family, on real exports and builds."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from subjects import EACH, relative, subject_of

from f3prune.calibration import prune_denoiser
from f3prune.core.calls import outputs_of
from f3prune.core.errors import ArtifactError, BackendError
from f3prune.engines import BuildConfig, build_engine, open_session
from f3prune.exporter import ExportConfig, export_denoiser, flatten_arguments
from f3prune.testing import TINY_SHAPES, VARIANTS
from tests.exports import EXPORTED_DENSE, exported

# An export takes seconds. One variant of each layout, and the two with projections of their own kind, are exported in
# every unit and mode; all others once, with another mode at every site in turn.
ALL_UNITS = ("latte", "cogvideox", "ltx", "hunyuan_video")
MIXED = (None, "mixed")
ALWAYS = {("layer", "local"), ("head", "drop"), ("layer", "static"), ("layer", "pooled")}
SLOW = pytest.mark.slow(reason="units and modes that two other variants are exported in")
EXPORTED = [
    pytest.param(*each, marks=SLOW if each[0] in ("ltx", "hunyuan_video") and each[1:] not in ALWAYS else [])
    for each in EACH
    if each[0] in ALL_UNITS
] + [(variant, *MIXED) for variant in VARIANTS if variant not in ALL_UNITS]
LOCAL = {variant: ("layer", "local") if variant in ALL_UNITS else MIXED for variant in VARIANTS}
"""Variant → an export of it that has lost all its layers, or is mixed."""
ALPHA = {"layer": 1.0, "head": 0.5, "frame-pair": 0.5}
PLAIN = ExportConfig(self_test=False)


def mixed_masks(variant):
    """A site each: the whole layer local, half its heads dropped, the whole layer static or pooled, and again.

    Variants of few sites begin with different ones.
    """
    subject = subject_of(variant)
    modes = ("local", "drop", "static" if subject.family.layout == "temporal" else "pooled")
    whole = {mode: subject.masks(1.0, "layer", mode) for mode in modes}
    sites = {}
    for place, name in enumerate(subject.calibration.sites, VARIANTS.index(variant)):
        mode = modes[place % len(modes)]
        mask = whole[mode].stages[0].sites[name]
        half = mask.pruned_heads[: mask.heads // 2]
        sites[name] = dataclasses.replace(mask, pruned_heads=half) if mode == "drop" else mask
    stage = dataclasses.replace(whole["local"].stages[0], sites=sites)
    return dataclasses.replace(whole["local"], mode="auto", stages=(stage,))


class Exports:
    """Exported graphs of tiny denoisers, each made once."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}

    def get(self, variant, granularity, mode):
        key = (variant, granularity, mode)
        if key not in self.made:
            subject = subject_of(variant)
            masks = mixed_masks(variant) if granularity is None else subject.masks(ALPHA[granularity], *key[1:])
            model = prune_denoiser(copy.deepcopy(subject.denoiser), masks)
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
    record = build_engine(result.path, tmp_path, config, masks_digest=masks.digest)
    attentions = record.built["attention_fused"] + len(record.built["attention_unfused"])
    assert attentions >= result.facts.operators.get("Softmax", 0)
    with open_session(tmp_path) as session:
        for batch in (2, 3):
            shape = TINY_SHAPES[variant]
            inputs = subject.family.synthetic_inputs(subject.denoiser, shape, batch, torch.Generator().manual_seed(7))
            outputs = session.run(flatten_arguments(inputs).tensors).values()
            with torch.no_grad():
                expected = outputs_of(pruned(**inputs, return_dict=False), subject.family.outputs)
            for output, wanted in zip(outputs, expected.values(), strict=True):
                assert relative(output, wanted) < 1e-4, batch


@pytest.mark.parametrize("variant", EXPORTED_DENSE)
def test_5_pruned_layers_are_gone_from_the_graph(exports, variant):
    subject = subject_of(variant)
    dense = exported(variant).result.facts
    result, _, masks = exports.get(variant, *LOCAL[variant])
    sites = masks.stages[0].sites.values()
    if subject.family.layout == "temporal":
        gone = [mask for mask in sites if len(mask.pruned_heads) == mask.heads]
        assert len(gone) >= len(sites) / 2
        assert result.facts.operators.get("Softmax", 0) == dense.operators["Softmax"] - len(gone)
        assert result.facts.nodes < dense.nodes
        assert result.facts.parameters < dense.parameters
    if any(mask.stand_in.spec == "drop" for mask in sites):
        assert result.facts.parameters < dense.parameters
    if variant in ALL_UNITS:
        fewer_heads = exports.get(variant, "head", "drop")[0].facts
        dropped = exports.get(variant, "layer", "drop")[0].facts
        assert dropped.operators.get("Softmax", 0) == dense.operators["Softmax"] - len(sites)
        assert dropped.nodes < dense.nodes
        assert dropped.parameters < fewer_heads.parameters < dense.parameters


@pytest.mark.parametrize(
    ("variant", "granularity", "mode"),
    [
        *((variant, *LOCAL[variant]) for variant in VARIANTS),
        *(
            pytest.param(variant, "head", "drop", marks=pytest.mark.slow(reason="another build"))
            for variant in ALL_UNITS
        ),
    ],
)
def test_4_tensorrt_rtx_builds_the_pruned_graph(exports, variant, granularity, mode, tmp_path):
    """A real ahead-of-time build; without a driver the engine then says in one line why it cannot run."""
    result, _, masks = exports.get(variant, granularity, mode)
    config = BuildConfig(backend="tensorrt-rtx", cache=False, compute_capabilities=("8.9",))
    record = build_engine(result.path, tmp_path, config, masks_digest=masks.digest)
    assert record.masks_digest == masks.digest
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 10_000
    if not torch.cuda.is_available():
        with pytest.raises(BackendError) as error, open_session(tmp_path):
            pass
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_6_an_engine_of_other_masks_or_altered_bytes_is_refused(exports, variant, tmp_path):
    result, _, masks = exports.get(variant, *LOCAL[variant])
    with pytest.raises(ArtifactError, match="masks"):
        build_engine(result.path, tmp_path, BuildConfig(cache=False), masks_digest="0" * 64)
    build_engine(result.path, tmp_path, BuildConfig(cache=False), masks_digest=masks.digest)
    weights = max((f for f in tmp_path.iterdir() if f.suffix != ".json"), key=lambda f: f.stat().st_size)
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.unlink()
    weights.write_bytes(damaged)
    with pytest.raises(ArtifactError), open_session(tmp_path):
        pass
