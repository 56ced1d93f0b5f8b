"""Plans from configurations alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from f3prune.bench.costs.machine import MachineRates
from f3prune.bench.costs.plan import (
    BUILD_PEAK,
    BUILD_SECONDS,
    CHECK_LIBRARIES_BYTES,
    EXPORT_PEAK,
    EXPORT_SECONDS,
    LIBRARIES_BYTES,
    PlanOptions,
    check_peak_bytes,
    does_not_fit,
    plan,
)
from f3prune.cli.main import cli
from f3prune.core.errors import InputError
from f3prune.testing import TINY_SHAPES, tiny_denoiser

RATES = MachineRates("a machine", "cpu", 1, {"fp32": 1e9, "fp16": 2e9}, {})


def saved(folder: Path, variant: str) -> str:
    denoiser = tiny_denoiser(variant)
    denoiser.save_config(folder)
    return str(folder)


def cogvideox_of_six_layers(folder: Path) -> str:
    from diffusers import CogVideoXTransformer3DModel

    with torch.device("meta"):
        model = CogVideoXTransformer3DModel(
            num_attention_heads=6,
            attention_head_dim=64,
            num_layers=6,
            time_embed_dim=256,
            text_embed_dim=256,
            max_text_seq_length=32,
            sample_width=32,
            sample_height=32,
            sample_frames=49,
        )
    model.save_config(folder)
    return str(folder)


def test_products_allow_what_a_count_by_hand_allows(tmp_path):
    """13 frames of 256 tokens and 32 of text, width 384; modulation and patches are not in the count by hand."""
    width, per_frame, text = 384, 256, 32
    video = 13 * per_frame
    linear = 12 * width**2 * (video + text)
    dense = 2 * (video + text) ** 2 * width
    local = 2 * width * (video * (per_frame + text) + text**2)
    found = plan(cogvideox_of_six_layers(tmp_path), PlanOptions(alphas=(0.5, 1.0), batch=1), RATES).outlooks
    assert found[0].attention_flops == 6 * 2 * dense
    assert found[2].attention_flops == 6 * 2 * local
    assert found[0].projection_flops == 6 * 2 * 4 * width**2 * (video + text)
    assert found[1].products_allow == pytest.approx((linear + dense) / (linear + (dense + local) / 2), rel=0.01)
    assert found[2].products_allow == pytest.approx((linear + dense) / (linear + local), rel=0.02)
    assert found[0].seconds == found[0].flops / 2e9


@pytest.mark.parametrize("mode", ["local", "drop"])
@pytest.mark.parametrize("granularity", ["layer", "head"])
@pytest.mark.parametrize("variant", ["latte", "wan", "ltx", "svd"])
def test_more_pruning_leaves_less(variant, granularity, mode, tmp_path):
    size = TINY_SHAPES[variant]
    options = PlanOptions((0.5, 1.0), granularity, mode, "fp16", size.frames, size.height, size.width)
    dense, half, full = plan(saved(tmp_path, variant), options, RATES).outlooks
    assert dense.flops > half.flops > full.flops
    assert dense.attention_flops > half.attention_flops > full.attention_flops
    if mode == "drop":
        assert dense.parameters > half.parameters > full.parameters
        assert full.attention_flops == 0


def test_a_model_whose_work_depends_on_values_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"depends on values.*calibrate it"):
        plan(saved(tmp_path, "mochi"), PlanOptions(), RATES)


def test_cogvideo_is_counted_by_whole_clips(tmp_path):
    from f3prune.models import CogVideo

    config = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 64, "frame_len": 16}
    with torch.device("meta"):
        model = CogVideo.from_config({**config, "text_len": 4, "frame_num": 3})
    model.save_config(tmp_path)
    found = plan(str(tmp_path), PlanOptions(alphas=(1.0,), mode="drop"), RATES)
    assert found.unit == "pass over a clip"
    assert found.outlooks[0].parameters > found.outlooks[1].parameters
    assert found.outlooks[0].flops > found.outlooks[1].flops
    assert found.outlooks[1].attention_flops == 0


def test_what_does_not_fit_is_said(tmp_path):
    found = plan(saved(tmp_path, "latte"), PlanOptions(alphas=()), RATES)
    assert does_not_fit(found, tmp_path, 2**40) == []
    for step, line in zip(("export", "build", "check"), does_not_fit(found, tmp_path, 10**6), strict=True):
        assert f"{step} needs about" in line


def test_the_command_shows_and_writes_it(tmp_path):
    arguments = ["plan", saved(tmp_path / "model", "latte"), "--alpha", "0.5", "--json", str(tmp_path / "plan.json")]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "GEMM speed-up bound" in result.output
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [outlook["alpha"] for outlook in written["outlooks"]] == [0, 0.5]


def test_an_unknown_published_name_lists_the_known():
    with pytest.raises(InputError, match="published:wan-14b"):
        plan("published:wan-15b", PlanOptions(), RATES)


def test_a_published_shape_counts_its_parameters():
    found = plan("published:wan-1.3b", PlanOptions(alphas=()), RATES)
    assert found.outlooks[0].parameters == pytest.approx(1.42e9, rel=0.01)


RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "full_size.json"


@pytest.mark.parametrize("case", sorted(json.loads(RESULTS.read_text(encoding="utf-8"))["cases"]))
def test_what_a_plan_expects_is_what_full_size_models_took(case: str) -> None:
    """The plan's ratios are written down; this says when a new measurement makes them wrong."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["cases"][case]
    weights = found["weights_gb"] * 1e9
    for step, ratio, rate in (("export", EXPORT_PEAK, EXPORT_SECONDS), ("build", BUILD_PEAK, BUILD_SECONDS)):
        if step not in found["steps"]:
            continue
        expected = LIBRARIES_BYTES + ratio * weights
        # A plan says whether it fits: never much below what was taken.
        assert 0.9 < expected / (found["steps"][step]["peak_gb"] * 1e9) < 1.6, step
        assert 0.6 < rate * weights / 1e9 / found["steps"][step]["seconds"] < 1.7, step


def test_what_a_plan_expects_of_a_check_is_what_one_took() -> None:
    """One denoiser at a time: the whole is a good deal less than the three of them together."""
    found = json.loads(RESULTS.with_name("check_memory.json").read_text(encoding="utf-8"))
    parameters, steps = found["parameters"], found["steps"]
    for step, dense in (("check", parameters), ("check, weights in files", 0)):
        assert 0.9 < check_peak_bytes(dense, parameters) / (steps[step]["peak_gb"] * 1e9) < 1.6, step
    # A dense copy of 5 GB, as measured, without the libraries, grown in proportion.
    copy = 4 * parameters
    grown = (steps["check"]["peak_gb"] * 1e9 - CHECK_LIBRARIES_BYTES) * 5e9 / copy
    assert CHECK_LIBRARIES_BYTES + grown < 8e9
