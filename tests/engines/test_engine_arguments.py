"""What pipelines of every kind pass, mapped to what graphs take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

from f3prune.core.errors import InputError
from f3prune.core.tensors import TensorSpec
from f3prune.engines.backends.tensorrt_build import PhaseTree
from f3prune.engines.denoiser import ArgumentMap
from f3prune.engines.session import bind_shapes

LTX = ArgumentMap(
    diffusers.LTXVideoTransformer3DModel.forward,
    (
        TensorSpec("hidden_states", "float16", ("batch", 6, 8)),
        TensorSpec("encoder_hidden_states", "float16", ("batch", 4, 8)),
        TensorSpec("timestep", "float32", ("batch",)),
        TensorSpec("encoder_attention_mask", "bool", ("batch", 4)),
    ),
    {"num_frames": 3, "height": 1, "width": 2, "rope_interpolation_scale": [0.32, 32, 32]},
    "the engine in run/engine",
)


def ltx(**changes: Any) -> dict[str, torch.Tensor]:
    arguments = {
        "hidden_states": torch.zeros(2, 6, 8),
        "encoder_hidden_states": torch.zeros(2, 4, 8),
        "timestep": torch.tensor([987.5, 987.5]),
        "encoder_attention_mask": torch.tensor([[1, 1, 0, 0]] * 2),
        "num_frames": 3,
        "height": 1,
        "width": 2,
        "rope_interpolation_scale": (0.32, 32, 32),
        "attention_kwargs": None,
        "return_dict": False,
        **changes,
    }
    return LTX.inputs(LTX.bind((), arguments))


def test_inputs_get_the_dtypes_of_the_graph() -> None:
    inputs = ltx()
    assert {name: tensor.dtype for name, tensor in inputs.items()} == {
        "hidden_states": torch.float16,
        "encoder_hidden_states": torch.float16,
        "timestep": torch.float32,
        "encoder_attention_mask": torch.bool,
    }
    assert inputs["encoder_attention_mask"].tolist() == [[True, True, False, False]] * 2
    assert inputs["timestep"].tolist() == [987.5, 987.5]


def test_constants_must_be_the_exported_ones() -> None:
    ltx(num_frames=torch.tensor(3), rope_interpolation_scale=[0.32000000001, 32.0, 32])
    with pytest.raises(InputError, match="was exported with num_frames=3, but the pipeline passes 4"):
        ltx(num_frames=4)
    with pytest.raises(InputError, match=r"rope_interpolation_scale=\[0\.32, 32, 32\]"):
        ltx(rope_interpolation_scale=(0.32, 16, 32))
    with pytest.raises(InputError, match="num_frames=3, but the pipeline passes None"):
        ltx(num_frames=None)
    with pytest.raises(InputError, match="was exported without video_coords"):
        ltx(video_coords=torch.zeros(2, 3, 6))


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputError, match="takes encoder_attention_mask, which the pipeline did not pass"):
        ltx(encoder_attention_mask=None)


def test_svd_takes_one_timestep_for_all() -> None:
    specs = (TensorSpec("sample", "float32", ("batch", 3, 8, 4, 4)), TensorSpec("timestep", "float32", ()))
    forward: Callable[..., Any] = diffusers.UNetSpatioTemporalConditionModel.forward
    bound = ArgumentMap(forward, specs, {}, "the engine")

    def timestep(value: Any) -> torch.Tensor:
        arguments = {"sample": torch.zeros(2, 3, 8, 4, 4), "timestep": value}
        return bound.inputs(arguments)["timestep"]

    for value in (1.5, torch.tensor(1.5), torch.tensor([1.5, 1.5]), torch.tensor(1.5, dtype=torch.float64)):
        assert timestep(value).shape == ()
        assert timestep(value).item() == 1.5
    with pytest.raises(InputError, match=r"passes shape \[2\]"):
        timestep(torch.tensor([1.5, 2.5]))


def test_tensors_in_tuples_are_found_by_their_path() -> None:
    specs = (
        TensorSpec("hidden_states", "float32", ("batch", 2)),
        TensorSpec("image_rotary_emb.0.1", "float32", (3,)),
        TensorSpec("image_rotary_emb.0.0", "float32", (3,)),
        TensorSpec("image_rotary_emb.1", "int64", (1,)),
    )
    bound = ArgumentMap(diffusers.AllegroTransformer3DModel.forward, specs, {}, "the engine")
    cosine, sine, grid = torch.ones(3), torch.zeros(3), torch.tensor([5])
    inputs = bound.inputs({"hidden_states": torch.zeros(2, 2), "image_rotary_emb": ((cosine, sine), grid)})
    assert torch.equal(inputs["image_rotary_emb.0.0"], cosine)
    assert torch.equal(inputs["image_rotary_emb.0.1"], sine)
    assert torch.equal(inputs["image_rotary_emb.1"], grid)
    with pytest.raises(InputError, match=r"takes image_rotary_emb\.1, which"):
        bound.inputs({"hidden_states": torch.zeros(2, 2), "image_rotary_emb": ((cosine, sine),)})


def test_animatediff_text_is_repeated_for_every_frame() -> None:
    specs = (
        TensorSpec("sample", "float32", ("batch", 4, 3, 2, 2)),
        TensorSpec("timestep", "int64", ()),
        TensorSpec("encoder_hidden_states", "float32", ("3*batch", 5, 8)),
    )
    bound = ArgumentMap(diffusers.UNetMotionModel.forward, specs, {}, "the engine")
    arguments = bound.bind((torch.zeros(2, 4, 3, 2, 2), torch.tensor(5), torch.zeros(6, 5, 8)), {})
    assert bind_shapes(specs, bound.inputs(arguments), {"batch": (1, 2, 2)}) == {"batch": 2}
    arguments["encoder_hidden_states"] = torch.zeros(3, 5, 8)
    with pytest.raises(InputError, match="encoder_hidden_states has batch=1, but another input has batch=2"):
        bind_shapes(specs, bound.inputs(arguments), {})


def test_build_phases_become_one_number_that_only_grows() -> None:
    told: list[tuple[float, str]] = []
    tree = PhaseTree(lambda fraction, phase: told.append((round(fraction, 4), phase)))
    tree.start("build", None, 2)
    tree.start("parse", "build", 4)
    tree.step("parse", 0)
    tree.step("parse", 1)
    tree.finish("parse")
    tree.step("build", 0)
    tree.start("tune", "build", 2)
    tree.step("tune", 0)
    tree.step("unknown", 0)
    tree.finish("unknown")
    tree.finish("tune")
    tree.step("build", 1)
    tree.finish("build")
    assert [fraction for fraction, _ in told] == [0, 0, 0.125, 0.25, 0.5, 0.5, 0.5, 0.75, 1, 1, 1]
    assert told[-1] == (1, "build")
