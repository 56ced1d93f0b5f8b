"""ONNX Runtime: the backend that always runs. An "engine" is the graph with attention fused, tried once.

Saving ONNX Runtime's optimised graph instead would tie the file to one processor for a gain at load time only, so the
rest is optimised when a session opens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from f3prune.core.atomic_files import atomic_write, copy_file
from f3prune.core.errors import BackendError, BuildError, reason_of
from f3prune.core.tensors import GRAPH_FILE, ONNX_TYPES, TensorSpec
from f3prune.engines._graph import Graph
from f3prune.engines._record import EngineRecord
from f3prune.engines.backends.cuda import find_gpu
from f3prune.engines.session import Session, require_version

if TYPE_CHECKING:
    import torch

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3
_INSTALL = "pip install onnxruntime-gpu (or onnxruntime, for the CPU alone)"


def installed_version() -> str:
    """Version of ONNX Runtime.

    Raises:
        BackendError: it is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise BackendError(f"backend onnxruntime is not installed: {_INSTALL}")
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    import onnxruntime

    return str(onnxruntime.__version__)


def write_graph(graph: Graph, directory: Path, fused_attention: int | None) -> tuple[list[str], dict[str, float]]:
    """Put the graph, rewritten for ONNX Runtime or as it is, and its data files into ``directory``.

    Args:
        graph: the exported graph.
        directory: of the engine.
        fused_attention: see ``BuildConfig``.

    Returns:
        The names of the files, and how many attentions were fused.
    """
    facts: dict[str, Any] = {}
    if fused_attention is not None:
        from f3prune.engines.rewrites import rewrite_for_onnx_runtime

        with atomic_write(directory / GRAPH_FILE) as temporary:
            found = rewrite_for_onnx_runtime(graph.path, temporary, fused_attention)
        facts = {"attention_fused": found.fused, "attention_unfused": list(found.unfused)}
    else:
        copy_file(graph.path, directory / GRAPH_FILE)
    for location in graph.weights:
        copy_file(graph.path.parent / location, directory / location)
    return [GRAPH_FILE, *graph.weights], facts


def try_graph(path: Path) -> None:
    """Load the graph once, without optimising it.

    Raises:
        BuildError: ONNX Runtime refuses it.
    """
    import onnxruntime

    gpu = not isinstance(find_gpu(), str) and _CUDA in onnxruntime.get_available_providers()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(str(path), options, providers=[_CUDA, _CPU] if gpu else [_CPU])
    except Exception as error:  # ONNX Runtime's errors share no base class
        hint = (
            "; its CPU provider lacks bfloat16 kernels, export fp32 or fp16"
            if "bfloat16" in str(error) and not gpu
            else ""
        )
        raise BuildError(f"onnxruntime refused {path.name}: {reason_of(error, 1000)}{hint}") from error


def session_options(record: EngineRecord) -> Any:
    """ONNX Runtime's ``SessionOptions`` for an engine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    level = _LEVELS[record.flags["graph_optimization"]]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads = int(record.flags["threads"])
    return options


@dataclass
class _Prepared:
    """The I/O binding of one set of shapes: bound addresses by input, and the shape of each output (None: unknown)."""

    binding: Any
    addresses: dict[str, int]
    outputs: tuple[tuple[TensorSpec, torch.dtype, tuple[int, ...] | None], ...]


class OnnxRuntimeSession(Session):
    """A session whose inputs and outputs are torch memory, bound by address.

    The binding of a set of shapes is kept: a run binds the inputs that lie elsewhere than in the run before (text
    embeddings stay, latents move) and new memory for the outputs. Nothing is copied.
    """

    shapes_kept: ClassVar[int] = 4

    def __init__(self, directory: Path, record: EngineRecord, device: torch.device | str | None) -> None:
        """Choose the device.

        Raises:
            BackendError: ONNX Runtime is missing or of another version than built the engine, or ``device`` is a GPU
                that cannot be used.
        """
        require_version(directory, record, installed_version())
        super().__init__(directory, record, _choose_device(device))
        self._session: Any = None

    def _load(self) -> None:
        import onnxruntime

        options = session_options(self.record)
        providers: list[Any] = [_CPU]
        if self.device.type == "cuda":
            onnxruntime.preload_dlls()
            providers = [(_CUDA, {"device_id": self.device.index or 0}), _CPU]
        try:
            self._session = onnxruntime.InferenceSession(str(self.directory / GRAPH_FILE), options, providers=providers)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BackendError(
                f"onnxruntime cannot open {self.directory / GRAPH_FILE}: {reason_of(error, 1000)}"
            ) from error
        if self.device.type == "cuda" and self._session.get_providers()[0] != _CUDA:
            self._session = None
            raise BackendError(
                "onnxruntime could not start on the GPU, its CUDA libraries are missing: "
                'pip install "onnxruntime-gpu[cuda,cudnn]", or open the session with device cpu'
            )

    def _unload(self) -> None:
        self._session = None

    def _prepare(self, inputs: dict[str, torch.Tensor], sizes: dict[str, int]) -> _Prepared:
        del inputs
        outputs = tuple((spec, spec.torch_dtype, spec.resolve(sizes)) for spec in self.outputs)
        return _Prepared(self._session.io_binding(), {}, outputs)

    def _run(self, prepared: _Prepared, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        binding, addresses = prepared.binding, prepared.addresses
        device, index = self.device.type, self.device.index or 0
        for spec in self.inputs:
            tensor = inputs[spec.name]
            address = tensor.data_ptr()
            if addresses.get(spec.name) != address:
                binding.bind_input(spec.name, device, index, ONNX_TYPES[spec.dtype], list(tensor.shape), address)
                addresses[spec.name] = address
        outputs: dict[str, torch.Tensor] = {}
        unbound = False
        for spec, dtype, shape in prepared.outputs:
            if shape is None:
                binding.bind_output(spec.name, device, index)
                unbound = True
                continue
            output = torch.empty(shape, dtype=dtype, device=self.device)
            binding.bind_output(spec.name, device, index, ONNX_TYPES[spec.dtype], list(shape), output.data_ptr())
            outputs[spec.name] = output
        if device == "cuda":
            # ONNX Runtime works on a stream of its own: what torch queued for the inputs must be done first.
            torch.cuda.current_stream(self.device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BackendError(
                f"onnxruntime failed while running {self.directory / GRAPH_FILE}: {reason_of(error, 1000)}"
            ) from error
        if not unbound:
            return outputs
        values = dict(zip((spec.name for spec in self.outputs), binding.get_outputs(), strict=True))
        return {
            spec.name: outputs[spec.name]
            if spec.name in outputs
            else torch.utils.dlpack.from_dlpack(values[spec.name]).clone()
            for spec in self.outputs
        }

    def _bind(
        self, inputs: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor], sizes: dict[str, int]
    ) -> Callable[[], None]:
        """Bind once; ONNX Runtime's scatter operators leave a cache where it is if input and output share memory."""
        import torch

        del sizes
        session, binding = self._session, self._session.io_binding()
        device, index = self.device.type, self.device.index or 0
        for specs, tensors, bind in (
            (self.inputs, inputs, binding.bind_input),
            (self.outputs, outputs, binding.bind_output),
        ):
            for spec in specs:
                tensor = tensors[spec.name]
                bind(spec.name, device, index, ONNX_TYPES[spec.dtype], list(tensor.shape), tensor.data_ptr())

        def step() -> None:
            if device == "cuda":
                torch.cuda.current_stream(self.device).synchronize()
            try:
                session.run_with_iobinding(binding)
            except Exception as error:  # ONNX Runtime's errors share no base class
                raise BackendError(
                    f"onnxruntime failed while running {self.directory / GRAPH_FILE}: {reason_of(error, 1000)}"
                ) from error

        # The binding holds addresses only: the step keeps the tensors alive.
        step.tensors = (inputs, outputs)  # type: ignore[attr-defined]
        return step


_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def _choose_device(device: torch.device | str | None) -> torch.device:
    import onnxruntime
    import torch

    usable = torch.cuda.is_available() and _CUDA in onnxruntime.get_available_providers()
    if device is None:
        return torch.device("cuda", torch.cuda.current_device()) if usable else torch.device("cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not usable:
        found = find_gpu(chosen.index or 0)
        reason = (
            found if isinstance(found, str) else f"torch {torch.__version__} or onnxruntime was installed without CUDA"
        )
        raise BackendError(f"device {chosen} was asked for, but {reason}: use device cpu")
    return chosen
