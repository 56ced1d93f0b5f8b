"""Recorded denoiser calls come back from their file as they were, and choose steps across the whole schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from f3prune.core.captured_calls import Capture, CapturedCall, load_calls, plain_arguments, record_calls, save_calls
from f3prune.core.errors import ArtifactError, InputError

tensors = st.integers(1, 4).map(lambda n: torch.arange(n * 2.0).reshape(n, 2)) | st.just(torch.tensor(3))
leaves = tensors | st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.text(max_size=3)
values = leaves | st.tuples(tensors, tensors) | st.dictionaries(st.sampled_from("ab"), tensors, min_size=1)


def same(a: object, b: object) -> bool:
    if torch.is_tensor(a) or torch.is_tensor(b):
        return torch.is_tensor(a) and torch.is_tensor(b) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


@settings(max_examples=40, deadline=None)
@given(arguments=st.dictionaries(st.sampled_from(["x", "y", "z"]), values, min_size=1))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, arguments: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("c") / "calls.safetensors"
    calls = [CapturedCall(7.0, {**arguments, "t": torch.tensor([1])}), CapturedCall(0.5, arguments)]
    save_calls(calls, path)
    read = load_calls(path)
    assert [call.timestep for call in read] == [7.0, 0.5]
    assert all(same(dict(a.arguments), dict(b.arguments)) for a, b in zip(calls, read, strict=True))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"\0" * 20)
    with pytest.raises(ArtifactError, match=r"`calibrate\(\.\.\.\)`"):
        load_calls(tmp_path / "c")
    with pytest.raises(InputError, match="never ran"):
        save_calls([], tmp_path / "d")


def test_what_says_nothing_is_left_out() -> None:
    found = plain_arguments({"a": None, "return_dict": False, "b": {}, "c": [1, 2], "d": {"e": None}, "f": print})
    assert found == {"c": (1, 2)}


class Denoiser(nn.Module):
    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None
    ) -> torch.Tensor:
        return hidden_states


@pytest.mark.parametrize(("steps", "kept"), [(1, [0]), (3, [0, 1, 2]), (10, [0, 3, 6, 9])])
def test_calls_are_spread_over_the_steps(steps: int, kept: list[int]) -> None:
    denoiser = Denoiser()
    capture = Capture(denoiser, steps)
    with capture.recording():
        for prompt in range(2):
            for step in range(steps):
                for _half in range(2):  # guidance as two calls
                    text = torch.zeros(1, 3 + prompt, 4)
                    denoiser(torch.full((1,), float(prompt)), torch.tensor([100 - step]), encoder_hidden_states=text)
    assert [call.timestep for call in capture.calls] == [100 - step for step in kept]
    assert all(float(call.arguments["hidden_states"]) == 0.0 for call in capture.calls)
    assert capture.text_lengths == {3, 4}
    denoiser(torch.zeros(1), torch.tensor([5]))
    assert len(capture.calls) == len(kept)


def test_recorded_arguments_are_copies_by_name_and_no_hook_stays() -> None:
    denoiser, latents = Denoiser(), torch.ones(1, 2)

    def denoise() -> None:
        for timestep in (3, 2, 1):
            for _half in range(2):
                denoiser(latents, timestep=torch.tensor([timestep]))
            latents.mul_(2)
        if broken:
            raise ValueError("from the loop")

    broken = False
    calls = record_calls(denoiser, denoise)
    assert [timestep for timestep, _ in calls] == [3, 2, 1]
    assert [set(arguments) for _, arguments in calls] == [{"hidden_states", "timestep", "return_dict"}] * 3
    assert [float(arguments["hidden_states"].max()) for _, arguments in calls] == [1, 2, 4]
    broken = True
    with pytest.raises(ValueError, match="from the loop"):
        record_calls(denoiser, denoise)
    assert not denoiser._forward_pre_hooks
