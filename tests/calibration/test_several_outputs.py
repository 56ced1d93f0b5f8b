"""Models that denoise sound beside the video."""

from __future__ import annotations

import copy

import pytest
import torch

from f3prune.calibration import prune_denoiser, refit
from f3prune.calibration.replacements import replacement_of
from f3prune.calibration.scores._output_error import OutputError
from f3prune.core.calls import outputs_of
from f3prune.core.errors import InputError
from tests.subjects import subject_of


def test_every_output_counts_alike_in_leave_one_out() -> None:
    subject = subject_of("ltx2")
    masks, names = subject.masks(1.0, "layer", "local"), subject.family.outputs
    error = OutputError(
        subject.denoiser, subject.calibration, [(500.0, subject.inputs)], "layer", replacement_of("local")
    )
    pruned = prune_denoiser(copy.deepcopy(subject.denoiser), masks)
    with torch.no_grad():
        dense, without = (outputs_of(model(**subject.inputs), names) for model in (subject.denoiser, pruned))
    expected = [((without[name] - dense[name]).norm() / dense[name].norm()) ** 2 for name in names]
    assert min(expected) > 0
    assert float(error.of(masks)) == pytest.approx(float(sum(expected)) / 2, rel=1e-3)


def test_gated_heads_are_not_refitted() -> None:
    subject = subject_of("ltx2")
    with pytest.raises(
        InputError, match=r"refit does not work at transformer_blocks\.0\.attn1, whose heads are scaled"
    ):
        refit(subject.denoiser, subject.masks(1.0, "layer", "local"), lambda: None)


def test_a_missing_output_is_named() -> None:
    with pytest.raises(InputError, match="returned no audio_sample beside its sample"):
        outputs_of((torch.zeros(1),), ("sample", "audio_sample"))
