"""Run a graph in ONNX Runtime's CPU provider, tensors in and out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from f3prune.core.errors import ExportError, reason_of
from f3prune.core.tensors import ONNX_TYPES
from f3prune.exporter.self_test._bfloat16 import save_as_float32

_BFLOAT16 = ONNX_TYPES["bfloat16"]


class OrtGraph:
    """A loaded graph.

    Attributes:
        ran_as: ``graph``, or ``fp32`` where the provider lacks an operator in bfloat16 and runs a float32 version.
    """

    def __init__(self, path: Path) -> None:
        """Load ``path``.

        Raises:
            ExportError: ONNX Runtime refuses it.
        """
        self.ran_as = "graph"
        self._name = path.name
        try:
            self._session = _session(path)
        except Exception as error:
            if not (_lacks_kernel(error) and _uses_bfloat16(path)):
                raise ExportError(f"ONNX Runtime refuses {path.name}: {reason_of(error, 300)}") from error
            self.ran_as = "fp32"
            with tempfile.TemporaryDirectory(prefix="f3prune-") as scratch:
                self._session = _session(save_as_float32(path, Path(scratch)))
        self._wanted = {value.name: value.type for value in self._session.get_inputs()}

    def run(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The first output for ``tensors`` by input name.

        Raises:
            ExportError: ONNX Runtime fails at an operator.
        """
        return next(iter(self.run_all(tensors).values()))

    def run_all(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every output by name for ``tensors`` by input name.

        Raises:
            ExportError: ONNX Runtime fails at an operator.
        """
        import onnxruntime

        feeds: dict[str, Any] = {}
        for name, wanted in self._wanted.items():
            tensor = tensors[name].detach().cpu().contiguous()
            if wanted == "tensor(float)":
                tensor = tensor.float()
            if tensor.dtype == torch.bfloat16:
                feeds[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                    tensor.view(torch.uint16).numpy(), _BFLOAT16
                )
            else:
                feeds[name] = onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy())
        try:
            outputs = self._session.run_with_ort_values(None, feeds)
        except Exception as error:
            raise ExportError(
                f"ONNX Runtime cannot run {self._name}: {reason_of(error, 300)}; try another `opset`"
            ) from error
        names = [value.name for value in self._session.get_outputs()]
        return {name: _tensor(output) for name, output in zip(names, outputs, strict=True)}


def _tensor(output: Any) -> torch.Tensor:
    if output.element_type() == _BFLOAT16:
        return torch.utils.dlpack.from_dlpack(output._get_c_value()).clone()
    return torch.from_numpy(np.array(output.numpy()))


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _lacks_kernel(error: Exception) -> bool:
    return "NOT_IMPLEMENTED" in str(error) or "Could not find an implementation" in str(error)


def _uses_bfloat16(path: Path) -> bool:
    import onnx_ir as ir

    model = ir.load(path)
    values = (*model.graph.inputs, *model.graph.initializers.values())
    return any(value.dtype == ir.DataType.BFLOAT16 for value in values)
