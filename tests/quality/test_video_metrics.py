"""PSNR, SSIM, motion and prompt following on videos whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
from clips import noisy, shifting, texture
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.core.errors import InputError
from f3prune.quality import _packages
from f3prune.quality.metrics._digits import PromptFollowing, Request, request_of
from f3prune.quality.metrics._flow import dynamic_degree, flow_between, warping_error
from f3prune.quality.metrics._paired import psnr, ssim
from f3prune.zoo.digits.dataset import ClipSource, load_split, prompt_of


def test_psnr_is_known_and_capped():
    video = np.full((2, 16, 16, 3), 0.5, np.float32)
    assert psnr(video, video + np.float32(0.1)) == pytest.approx(20.0, abs=1e-4)
    assert psnr(video, video) == 60.0
    assert psnr(video, video + np.float32(1e-4)) == 60.0


def test_ssim_falls_with_noise_and_is_one_for_equal_videos():
    video = shifting()
    assert ssim(video, video) == pytest.approx(1.0)
    assert ssim(video, noisy(video, 0.2)) < ssim(video, noisy(video, 0.05)) < 1.0


def test_dynamic_degree_sees_speed_direction_and_frozen_motion():
    slow, fast = dynamic_degree(shifting(step=1)), dynamic_degree(shifting(step=3))
    assert slow == pytest.approx(100 * 1 / 48, rel=0.15)
    assert fast == pytest.approx(100 * 3 / 48, rel=0.15)
    frozen = np.repeat(shifting()[:1], 5, axis=0)
    assert dynamic_degree(frozen) == pytest.approx(0.0, abs=1e-3)
    assert dynamic_degree(frozen[:1]) is None


def test_a_small_moving_object_counts():
    video = np.repeat(0.2 * texture(64, 64)[None], 4, axis=0)
    for index in range(4):
        video[index, 20:40, 8 + 4 * index : 28 + 4 * index] = texture(20, 20, seed=1)
    assert dynamic_degree(video) == pytest.approx(100 * 4 / 64, rel=0.3)


def test_flow_points_right_and_down():
    picture = np.rint(texture(300, 300) * 255).astype(np.uint8)[..., 0]
    flow = flow_between(picture[5:295, 5:295], picture[2:292, 1:291])
    assert np.median(flow.reshape(-1, 2), axis=0) == pytest.approx((4.0, 3.0), abs=0.2)


def test_the_warping_error_forgives_motion_but_not_flicker():
    video = shifting()
    bright = np.clip(video * np.array([1.0, 0.7, 1.0, 0.7, 1.0])[:, None, None, None], 0, 1).astype(np.float32)
    pan = warping_error(video)
    assert pan < 0.002
    assert np.square(np.diff(video, axis=0)).mean() > 4 * pan
    assert warping_error(noisy(video)) > 4 * pan
    assert warping_error(bright) > 4 * pan
    assert warping_error(video[:1]) is None


@settings(deadline=None)
@given(st.integers(0, 9), st.sampled_from(["", "left", "right", "up", "down"]), st.integers(0, 999))
def test_every_prompt_of_the_zoo_is_understood(digit, direction, seed):
    prompt = prompt_of(digit, direction, np.random.default_rng(seed))
    assert request_of(prompt) == Request(digit, direction or None)


@pytest.mark.parametrize("prompt", ["a dog moving left", "a 12 moving left", "a 3 moving north", ""])
def test_other_prompts_ask_for_nothing(prompt):
    assert request_of(prompt) == Request(None, None)


def test_real_clips_follow_their_prompts():
    clips = ClipSource(load_split(held_out=True), 0).batch(20)
    videos = (clips.video * 0.5 + 0.5).permute(0, 2, 3, 4, 1).numpy()
    following = PromptFollowing()
    right = [following.digit(v, p) for v, p in zip(videos, clips.prompts, strict=True)]
    moves = [following.motion(v, p) for v, p in zip(videos, clips.prompts, strict=True)]
    assert np.mean(right) > 0.8
    assert np.mean(moves) > 0.9
    # A digit goes 2 of 32 pixels a frame.
    assert dynamic_degree(videos[0]) == pytest.approx(100 * 2 / 32, rel=0.15)
    assert warping_error(videos[0]) < 1e-4 < warping_error(noisy(videos[0]))
    frozen = np.repeat(videos[0][:1], 8, axis=0)
    assert dynamic_degree(frozen) == pytest.approx(0.0, abs=1e-3)
    assert following.motion(frozen, clips.prompts[0]) == 0.0
    assert following.motion(videos[0], "a 3") is None
    assert following.digit(videos[0], "a dog") is None
    with pytest.raises(InputError, match="32 x 32 pixels, not 48 x 64"):
        following.digit(shifting(), "a 3")


def test_what_is_no_video_is_named():
    video = shifting()
    with pytest.raises(InputError, match="float64 of shape"):
        dynamic_degree(video.astype(np.float64))
    with pytest.raises(InputError, match=r"from -1 to 1: expected \[0, 1\]"):
        psnr(np.full((1, 16, 16, 3), -1, np.float32) + 2 * np.eye(16, dtype=np.float32)[None, ..., None], video)
    with pytest.raises(InputError, match="expected one shape"):
        psnr(video, video[:2])
    with pytest.raises(InputError, match="8 x 8 pixels: expected at least 11"):
        ssim(video[:, :8, :8], video[:, :8, :8])
    with pytest.raises(InputError, match="nan"):
        psnr(video * np.float32("nan"), video)


def test_a_missing_package_names_the_extra():
    with pytest.raises(InputError, match=r"lpips needs absent_package.*pip install 'f3prune\[quality\]'"):
        _packages.need("absent_package", "lpips")
