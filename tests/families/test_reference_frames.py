"""Frames before the video that everyone may see: counted, never pruned away, and never a way between frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from subjects import run, subject_of

from f3prune.core.errors import InputError
from f3prune.engines.denoiser import ArgumentMap
from f3prune.families import TokenGrid

CONDITION = {"wan_vace": "control_hidden_states", "wan_animate": "hidden_states"}
"""The argument that a reference image is part of, at frame 0."""


def altered(inputs: dict[str, Any], name: str, frame: int) -> dict[str, Any]:
    tensor = inputs[name].clone()
    tensor[:, :4, frame] += 1.0
    return {**inputs, name: tensor}


@pytest.mark.parametrize("variant", CONDITION)
def test_references_are_no_frames_of_the_video(variant: str) -> None:
    subject = subject_of(variant)
    assert subject.grid == TokenGrid(3, 2, 3, references=1)
    assert subject.calibration.grid == subject.grid
    for mass in subject.calibration.mass.values():
        assert mass.shape[-2:] == (3, 4)
        assert mass[..., -1].min() > 0, "what references get stands with the text"


@pytest.mark.parametrize("mode", ["local", "window", "pooled"])
@pytest.mark.parametrize("variant", CONDITION)
def test_every_frame_sees_the_reference_in_a_fully_pruned_model(variant: str, mode: str) -> None:
    subject = subject_of(variant)
    pruned = subject.pruned(1.0, "layer", mode)
    before = run(pruned, subject.inputs)
    change = run(pruned, altered(subject.inputs, CONDITION[variant], 0)) - before
    frames = subject.family.frames_first(change, subject.grid).abs().flatten(1).amax(1)
    assert frames.shape == (3,)
    assert frames.min() > 1e-4


@pytest.mark.parametrize("variant", CONDITION)
def test_the_reference_sees_no_frame_of_a_frame_local_model(variant: str) -> None:
    """Otherwise one frame would reach another through it."""
    subject = subject_of(variant)
    moved = altered(subject.inputs, subject.family.latents, 2)
    dense = run(subject.denoiser, moved) - subject.dense
    local = run(subject.pruned(1.0), moved) - run(subject.pruned(1.0), subject.inputs)
    assert dense[:, :, 0].abs().max() > 1e-4
    assert local[:, :, 0].abs().max() == 0
    assert local[:, :, 2].abs().max() > 0


@pytest.mark.parametrize(("counted", "says"), [({}, "count 0"), ({"reference_frames": 2}, "count 2")])
def test_references_that_are_not_counted_are_noticed(counted: dict[str, int], says: str) -> None:
    subject = subject_of("wan_vace")
    with pytest.raises(InputError, match=rf"1 reference images.*{says}.*'reference_frames': 1") as caught:
        subject.family.token_grid(subject.denoiser, {**subject.inputs, "attention_kwargs": counted})
    assert "\n" not in str(caught.value)


def test_vace_without_references() -> None:
    subject = subject_of("wan_vace")
    video = {
        name: value[:, :, 1:] if torch.is_tensor(value) and value.ndim == 5 else value
        for name, value in subject.inputs.items()
        if name != "attention_kwargs"
    }
    assert subject.family.token_grid(subject.denoiser, video) == TokenGrid(3, 2, 3)
    pruned = subject.pruned(1.0)
    change = run(pruned, altered(video, "hidden_states", 1)) - run(pruned, video)
    assert [bool(frame.any()) for frame in change.unbind(2)] == [False, True, False]


def test_an_engine_of_one_reference_refuses_another_number() -> None:
    forward = type(subject_of("wan_vace").denoiser).forward
    arguments = ArgumentMap(forward, [], {"attention_kwargs": {"reference_frames": 1}}, "the engine")
    given = {"attention_kwargs": {"reference_frames": 1}}
    assert arguments.inputs(given) == {}
    with pytest.raises(InputError, match=r"attention_kwargs=\{'reference_frames': 1\}, but the pipeline passes None"):
        arguments.inputs({"attention_kwargs": None})


def test_a_face_is_asked_for_in_words() -> None:
    from types import SimpleNamespace

    denoiser = subject_of("consisid").denoiser
    with pytest.raises(InputError, match=r"id_cond and id_vit_hidden.*directory of its transformer"):
        subject_of("consisid").family.pipeline_arguments(SimpleNamespace(transformer=denoiser))


def test_layers_that_move_text_with_the_heads_are_refused() -> None:
    subject = subject_of("easyanimate")
    config = {**subject.denoiser.config, "mmdit_layers": 1}
    partly = type(subject.denoiser)(**config)
    with pytest.raises(InputError, match=r"cannot be pruned: only 1 of its 2 layers"):
        subject.family.find_sites(partly)
