"""Fidelity numbers have the properties that their names promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.core.errors import InputError
from f3prune.core.psnr import psnr
from f3prune.pipelines.fidelity import fidelity, flicker, ssim


def video(seed: int, frames: int = 3, edge: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).random((frames, edge, edge + 2, 3), dtype=np.float32)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_video_equals_itself(seed: int) -> None:
    found = fidelity(video(seed), video(seed))
    assert found.psnr is None
    assert found.psnr_per_frame == [None] * 3
    assert found.ssim == pytest.approx(1.0)
    assert found.flicker_reference == found.flicker_candidate


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), shift=st.floats(0.001, 0.5))
def test_psnr_of_a_known_error(seed: int, shift: float) -> None:
    reference = video(seed).astype(np.float64)
    assert psnr(reference, reference + shift) == pytest.approx(-20 * np.log10(shift))


def test_psnr_where_nothing_differs_or_a_value_is_no_number() -> None:
    assert psnr(np.ones(4), np.ones(4)) == np.inf
    assert np.isnan(psnr(np.ones(1), np.array([np.nan])))
    with pytest.raises(InputError, match="videos of shapes"):
        psnr(np.zeros(2), np.zeros(3))


def test_ssim_falls_with_noise_and_is_symmetric() -> None:
    reference, noise = video(0)[0], video(1)[0]
    close, far = 0.9 * reference + 0.1 * noise, 0.3 * reference + 0.7 * noise
    assert ssim(reference, far) < ssim(reference, close) < 1.0
    assert ssim(reference, close) == pytest.approx(ssim(close, reference))


def test_flicker_counts_change_from_frame_to_frame() -> None:
    still = np.repeat(video(0)[:1], 4, axis=0)
    assert flicker(still) == 0.0
    assert flicker(still[:1]) == 0.0
    steps = np.zeros((3, 4, 4, 3), dtype=np.float32) + np.array([0.0, 0.25, 0.5], dtype=np.float32)[:, None, None, None]
    assert flicker(steps) == pytest.approx(0.25)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="shapes"):
        fidelity(video(0), video(0, frames=4))
