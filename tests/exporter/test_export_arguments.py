"""Forward arguments come apart and together again; dtypes and symbolic axes follow the rules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from f3prune.core.errors import ExportError, InputError
from f3prune.core.json_values import from_json_values, json_values
from f3prune.exporter import ExportConfig, flatten_arguments
from f3prune.exporter._axes import Symbol, at_least_two, first_of_batch, symbolic_axes
from f3prune.exporter._dtype import in_dtype, inputs_in_dtype
from f3prune.testing import tiny_denoiser


def test_flatten_names_nested_tensors_by_path():
    states, cos, sin = torch.zeros(2, 3), torch.ones(1), torch.ones(2)
    given = {
        "hidden_states": states,
        "image_rotary_emb": ((cos, sin), [cos]),
        "added": {"ids": sin},
        "num_frames": 3,
        "scale": (0.5, 32),
        "attention_kwargs": None,
        "return_dict": False,
    }
    flat = flatten_arguments(given)
    assert list(flat.tensors) == [
        "hidden_states",
        "image_rotary_emb.0.0",
        "image_rotary_emb.0.1",
        "image_rotary_emb.1.0",
        "added.ids",
    ]
    assert flat.constants == {"num_frames": 3, "scale": [0.5, 32]}
    rebuilt = flat.rebuild({name: tensor + 1 for name, tensor in flat.tensors.items()})
    assert rebuilt["num_frames"] == 3
    assert rebuilt["scale"] == (0.5, 32)
    assert torch.equal(rebuilt["image_rotary_emb"][0][1], sin + 1)
    assert torch.equal(rebuilt["added"]["ids"], sin + 1)
    assert "return_dict" not in rebuilt


@pytest.mark.parametrize(("value", "dtype"), [(7, torch.int64), (0.5, torch.float32)])
def test_a_plain_timestep_becomes_an_input(value, dtype):
    flat = flatten_arguments({"timestep": value})
    assert flat.constants == {}
    assert flat.tensors["timestep"].shape == ()
    assert flat.tensors["timestep"].dtype == dtype
    assert flat.tensors["timestep"].item() == value


def test_an_argument_that_no_graph_can_hold_is_named():
    with pytest.raises(ExportError, match="joint_attention is object"):
        flatten_arguments({"joint_attention": object()})


def test_symbolic_axes():
    tensors = {
        "sample": torch.zeros(2, 4, 3, 4, 4),
        "timestep": torch.zeros(()),
        "encoder_hidden_states": torch.zeros(6, 5, 8),
        "ids": torch.zeros(2),
        "rotary.0": torch.zeros(2, 8),
    }
    axes = symbolic_axes(tensors, "sample", 3, ("batch", "text"))
    assert axes == {
        "sample": {0: Symbol("batch")},
        "timestep": {},
        "encoder_hidden_states": {0: Symbol("batch", 3), 1: Symbol("text")},
        "ids": {0: Symbol("batch")},
        "rotary.0": {},
    }
    single = first_of_batch(tensors, axes)
    assert [tuple(t.shape) for t in single.values()] == [(1, 4, 3, 4, 4), (), (3, 5, 8), (1,), (2, 8)]
    doubled = at_least_two(single, axes)
    assert {name: t.shape for name, t in doubled.items()} == {name: t.shape for name, t in tensors.items()}


def test_text_needs_text():
    with pytest.raises(ExportError, match="takes no encoder_hidden_states"):
        symbolic_axes({"sample": torch.zeros(2, 4)}, "sample", None, ("text",))


def test_inputs_in_dtype_converts_what_a_pipeline_would():
    tensors = {
        "hidden_states": torch.zeros(2, 3),
        "timestep": torch.zeros(2),
        "mask": torch.zeros(2, 3, dtype=torch.int64),
        "rotary.0": torch.zeros(3, 4),
    }
    converted = inputs_in_dtype(tensors, torch.float16)
    assert [tensor.dtype for tensor in converted.values()] == [
        torch.float16,
        torch.float32,
        torch.int64,
        torch.float32,
    ]


class Small(nn.Module):
    _keep_in_fp32_modules = ("norm",)

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.tied = self.project.weight
        self.register_buffer("saved", torch.ones(2))
        self.register_buffer("computed", torch.ones(2), persistent=False)


def test_in_dtype_copies_only_what_changes():
    small = Small()
    before = copy.deepcopy(small.state_dict())
    half = in_dtype(small, torch.float16)
    assert half is not small
    assert half.project.weight.dtype == half.saved.dtype == torch.float16
    assert half.tied is half.project.weight
    assert half.norm.weight is small.norm.weight
    assert half.computed is small.computed
    for name, tensor in small.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name])
    assert in_dtype(small, torch.float32) is small
    assert in_dtype(half, torch.float16) is half


def test_in_dtype_of_a_real_model_runs():
    half = in_dtype(tiny_denoiser("wan"), torch.bfloat16)
    kept = {name.split(".")[0] for name, p in half.named_parameters() if p.dtype == torch.float32}
    assert "scale_shift_table" in kept
    assert half.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


def test_config_round_trip_and_refusals():
    config = ExportConfig(dtype="fp16", opset=18, dynamic=("batch", "text"), self_test=False)
    assert from_json_values(ExportConfig, json_values(config)) == config
    assert config.torch_dtype == torch.float16
    for options, message in [
        ({"dtype": "int8"}, "`dtype` is 'int8', expected one of fp32, fp16, bf16"),
        ({"opset": 17}, "`opset` is 17, expected 18 to 23"),
        ({"dtype": "bf16", "opset": 20}, "`opset` 20 has no bfloat16 convolutions: use 22 or later"),
        ({"dynamic": ("frames",)}, "`dynamic` has 'frames', expected batch or text"),
        ({"max_test_inputs": 0}, "max_test_inputs 0"),
    ]:
        with pytest.raises(InputError, match=message):
            ExportConfig(**options)
