"""What can be asked of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from f3prune.core.choices import DTYPES, DYNAMIC
from f3prune.core.errors import InputError
from f3prune.core.tensors import Dtype, torch_dtype

if TYPE_CHECKING:
    import torch

MIN_OPSET = 18
MAX_OPSET = 23
MIN_OPSET_BF16 = 22
DEFAULT_OPSET = 22


@dataclass(frozen=True)
class ExportConfig:
    """Options of one export; the defaults work for every family in ONNX Runtime and TensorRT.

    Attributes:
        dtype: of weights and activations. What a model computes in fp32 on purpose stays in fp32.
        opset: ONNX operator set, 18 to 23; bfloat16 needs 22. Up to 22 attention is MatMul, Softmax, MatMul, which
            every backend takes. 23 has an ``Attention`` operator, which ONNX Runtime's CPU provider (1.31) refuses with
            HunyuanVideo's and Mochi's masks. ``None`` takes 22, and 23 for an fp16 graph with attention over more than
            65 504 keys: it sums in fp32 then, which TensorRT does in one kernel for that operator alone.
        dynamic: symbolic dimensions besides the fixed ones: ``batch``, and ``text``, the number of text tokens, where
            the family permits it.
        self_test: run the file in ONNX Runtime against PyTorch before it appears.
        self_test_limit: parameters times numbers in the latents up to which the self-test runs. Above it the test would
            take hours and twice the weights in memory on a CPU. It is then left out, and the result says so.
        max_test_inputs: how many of the test inputs the self-test runs.

    Raises:
        InputError: a value is out of range, or the opset does not have the dtype.

    Examples:
        >>> ExportConfig("fp16").torch_dtype
        torch.float16
        >>> ExportConfig("bf16", opset=18)
        Traceback (most recent call last):
            ...
        f3prune.core.errors.InputError: `opset` 18 has no bfloat16 convolutions: use 22 or later for bf16
    """

    dtype: Dtype = "fp32"
    opset: int | None = None
    dynamic: tuple[str, ...] = ("batch",)
    self_test: bool = True
    self_test_limit: float = 1e14
    max_test_inputs: int = 4

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"`dtype` is {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if self.opset is not None and not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise InputError(f"`opset` is {self.opset}, expected {MIN_OPSET} to {MAX_OPSET}")
        if self.dtype == "bf16" and self.opset is not None and self.opset < MIN_OPSET_BF16:
            raise InputError(
                f"`opset` {self.opset} has no bfloat16 convolutions: use {MIN_OPSET_BF16} or later for bf16"
            )
        if unknown := sorted(set(self.dynamic) - set(DYNAMIC)):
            raise InputError(f"`dynamic` has {unknown[0]!r}, expected {' or '.join(DYNAMIC)}")
        if self.max_test_inputs < 1:
            raise InputError(
                f"max_test_inputs {self.max_test_inputs}: expected 1 or more; self_test=False skips the test"
            )

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch's object."""
        return torch_dtype(self.dtype)
