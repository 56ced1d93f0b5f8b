"""Inputs of the self-test come from a real denoising loop."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from f3prune.core.errors import InputError
from f3prune.exporter import capture_inputs
from f3prune.testing import tiny_denoiser


def loop(denoiser, steps=4):
    """What every pipeline does, with positional arguments and a latent that is changed in place."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    text = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        with torch.no_grad():
            both = torch.cat([latents] * 2)
            noise = denoiser(both, text, timestep=t.expand(2), attention_kwargs=None, return_dict=False)[0]
        uncond, cond = noise.chunk(2)
        latents.copy_(scheduler.step(uncond + 3 * (cond - uncond), t, latents).prev_sample)
        both.zero_()


def test_capture_records_arguments_by_name_and_stops():
    denoiser = tiny_denoiser("cogvideox")
    calls = capture_inputs(denoiser, lambda: loop(denoiser), max_calls=3)
    assert len(calls) == 3
    for call in calls:
        assert list(call) == ["hidden_states", "encoder_hidden_states", "timestep", "attention_kwargs"]
        assert call["hidden_states"].shape == (2, 3, 4, 4, 6)
        assert call["hidden_states"].abs().max() > 0
    assert [int(call["timestep"][0]) for call in calls] == [750, 500, 250]
    assert not torch.equal(calls[0]["hidden_states"], calls[1]["hidden_states"])
    assert not denoiser._forward_pre_hooks


def test_capture_of_a_shorter_loop_and_of_none():
    denoiser = tiny_denoiser("cogvideox")
    assert len(capture_inputs(denoiser, lambda: loop(denoiser, steps=2), max_calls=9)) == 2
    with pytest.raises(InputError, match="never called its denoiser"):
        capture_inputs(denoiser, lambda: None, max_calls=1)
    with pytest.raises(InputError, match="max_calls 0"):
        capture_inputs(denoiser, lambda: None, max_calls=0)


def test_capture_leaves_errors_and_no_hook():
    denoiser = tiny_denoiser("cogvideox")

    def broken():
        raise ValueError("from the loop")

    with pytest.raises(ValueError, match="from the loop"):
        capture_inputs(denoiser, broken, max_calls=1)
    assert not denoiser._forward_pre_hooks
