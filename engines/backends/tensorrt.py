"""TensorRT and TensorRT-RTX sessions: torch's device memory bound by address, one CUDA graph per input shape."""

from __future__ import annotations

import hashlib
import mmap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from f3prune.core.errors import ArtifactError, BackendError, SlowerWarning, reason_of
from f3prune.engines._record import EngineRecord
from f3prune.engines.backends.cuda import require_gpu
from f3prune.engines.backends.device_memory import arena_of
from f3prune.engines.backends.runtime_cache import cache_file, read_cache, write_cache
from f3prune.engines.backends.trt_flavour import in_words, installed_version, require_supported, runs_on, select
from f3prune.engines.building import cache_directory
from f3prune.engines.session import Session, require_version

if TYPE_CHECKING:
    import torch

ENGINE_FILE = "denoiser.engine"


@dataclass
class _Prepared:
    """What one set of input shapes needs: a context, buffers at fixed addresses, and the recorded CUDA graph if any.

    ``scratch`` is the block of the device's arena that the context and the graph were last bound to.
    """

    context: Any
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    scratch_bytes: int
    scratch: torch.Tensor | None = None
    graph: torch.cuda.CUDAGraph | None = None


def load_engine(flavour: str, path: Path, sha256: str, errors: list[str]) -> tuple[Any, Any]:
    """Deserialise an engine file.

    Args:
        flavour: ``tensorrt-rtx`` or ``tensorrt``.
        path: of the engine.
        sha256: that the very bytes that are parsed must have.
        errors: TensorRT's error messages go here, now and as long as the engine lives.

    Returns:
        the runtime, which must outlive the engine, and the engine.

    Raises:
        ArtifactError: the hash differs.
        BackendError: TensorRT is missing or refuses the engine.
    """
    trt = select(flavour)
    from polygraphy.backend.trt import engine_from_bytes
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(" ".join(message.split()))

    runtime = trt.Runtime(Logger())
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        if hashlib.sha256(mapped).hexdigest() != sha256:
            raise ArtifactError(f"{path} was altered: run `build(...)` again")
        try:
            with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
                return runtime, engine_from_bytes(lambda: mapped, runtime=runtime)
        except PolygraphyException as error:
            raise BackendError(f"{flavour} could not load {path}: {errors[0] if errors else error}") from error


class TensorRTSession(Session):
    """Runs an engine on the GPU without copying through host memory.

    A CUDA graph replays on fixed addresses, so inputs are copied into them on the device; it saves the launch of every
    kernel of the engine. Each set of shapes owns an execution context; scratch memory is one block for all contexts on
    the device (``f3prune.engines.backends.device_memory``). Kernels that TensorRT-RTX compiles here are kept for the
    next process.
    """

    def __init__(self, directory: Path, record: EngineRecord, device: torch.device | str | None) -> None:
        """Check that this machine can run the engine.

        Raises:
            BackendError: no GPU or driver, a backend that is missing or of another version than built the engine, or a
                GPU the engine was not compiled for.
        """
        import torch

        chosen = torch.device("cuda" if device is None else device)
        if chosen.type != "cuda":
            raise BackendError(
                f"a {record.backend} engine runs on a GPU, not on device {chosen}: use `backend='onnxruntime'`"
            )
        gpu = require_gpu(f"a {record.backend} engine", chosen.index or 0)
        require_version(directory, record, installed_version(record.backend))
        require_supported(record.backend, gpu)
        if record.backend == "tensorrt-rtx" and not runs_on(record.compute_capabilities, gpu.capability):
            raise BackendError(
                f"the engine in {directory} was compiled for {in_words(record.compute_capabilities)}, "
                f"but this GPU is {gpu}: run `build(...)` again with `compute_capabilities={(gpu.capability,)!r}`"
            )
        if record.device and record.device != str(gpu):
            raise BackendError(
                f"the engine in {directory} was tuned on {record.device}, but this GPU is {gpu}: "
                f"run `build(...)` again here"
            )
        if not torch.cuda.is_available():
            raise BackendError(
                f"a {record.backend} engine needs torch with CUDA, but torch {torch.__version__} has none that works: "
                f"install torch for CUDA"
            )
        super().__init__(directory, record, torch.device("cuda", chosen.index or 0))
        self._engine: Any = None
        self._runtime: Any = None
        self._errors: list[str] = []
        self._stream: torch.cuda.Stream | None = None
        self._gpu = gpu
        self._arena = arena_of(self.device)
        self._kernels: Any = None
        self._known_kernels: bytes | None = None

    @property
    def graphs_recorded(self) -> int:
        """For how many sets of input shapes a run replays a recorded CUDA graph."""
        return sum(prepared.graph is not None for prepared in self._prepared.values())

    def _load(self) -> None:
        import torch

        path = self.directory / ENGINE_FILE
        with torch.cuda.device(self.device):
            self._runtime, self._engine = load_engine(
                self.record.backend, path, self.record.files[ENGINE_FILE]["sha256"], self._errors
            )
            self._stream = torch.cuda.Stream(self.device)
        self._limit_weights()
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        expected = {spec.name for spec in (*self.inputs, *self.outputs)}
        if names != expected:
            raise ArtifactError(
                f"{path} has tensors {sorted(names)}, expected {sorted(expected)}: run `build(...)` again"
            )

    def _limit_weights(self) -> None:
        """Keep so much of the weights on the GPU as the build was told, and stream the rest."""
        gib = self.record.flags.get("weight_streaming_gib")
        if gib is None:
            return
        budget = min(int(gib * 2**30), int(self._engine.streamable_weights_size))
        self._engine.weight_streaming_budget_v2 = budget
        if self._engine.weight_streaming_budget_v2 != budget:
            raise BackendError(
                f"{self.record.backend} did not take {gib:g} GiB for the weights of {self.directory} "
                f"({self._last_error()}): run `build(...)` with another `weight_streaming`"
            )

    def _unload(self) -> None:
        self._keep_kernels()
        self._engine = self._runtime = self._stream = self._kernels = None

    def _kernel_file(self) -> Path:
        return cache_file(cache_directory(), self._gpu, self.record.backend_version, self.record.key)

    def _keep_kernels(self) -> None:
        if self._kernels is None:
            return
        with self._kernels.serialize() as content:
            kernels = bytes(content)
        if kernels != self._known_kernels:
            write_cache(self._kernel_file(), kernels)
            self._known_kernels = kernels

    def _last_error(self) -> str:
        return self._errors[-1] if self._errors else "no reason given"

    def _open_stream(self) -> torch.cuda.Stream:
        if self._stream is None:
            raise BackendError(f"the session of {self.directory} has no CUDA stream: open it again")
        return self._stream

    def _discard(self, prepared: _Prepared) -> None:
        self._open_stream().synchronize()

    def _run(self, prepared: _Prepared, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        stream, caller = self._open_stream(), torch.cuda.current_stream(self.device)
        stream.wait_stream(caller)
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            for name, tensor in inputs.items():
                prepared.inputs[name].copy_(tensor, non_blocking=True)
                # The caller's memory is read on our stream: it must not be handed out again before that.
                tensor.record_stream(stream)
            with self._arena.lock:
                self._arena.wait(stream)
                self._place_scratch(prepared, stream)
                if prepared.graph is not None:
                    prepared.graph.replay()
                else:
                    self._enqueue(prepared.context, stream)
                self._arena.used_by(stream)
            outputs = {name: tensor.clone() for name, tensor in prepared.outputs.items()}
        caller.wait_stream(stream)
        for tensor in outputs.values():
            tensor.record_stream(caller)
        return outputs

    def _prepare(self, inputs: dict[str, torch.Tensor], sizes: dict[str, int]) -> _Prepared:
        import torch

        stream = self._open_stream()
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.device(self.device), torch.cuda.stream(stream):
            return self._prepare_on(stream, inputs, sizes)

    def _prepare_on(
        self, stream: torch.cuda.Stream, inputs: dict[str, torch.Tensor], sizes: dict[str, int]
    ) -> _Prepared:
        import torch

        context = self._create_context()
        if context is None:
            raise BackendError(
                f"{self.record.backend} has no room for {self.directory} on the GPU ({self._last_error()}): "
                f"free GPU memory or run `build(...)` for a smaller `batch`"
            )
        held = {name: tensor.clone() for name, tensor in inputs.items()}
        for name, tensor in held.items():
            if not context.set_input_shape(name, tuple(tensor.shape)) or not context.set_tensor_address(
                name, tensor.data_ptr()
            ):
                raise BackendError(
                    f"{self.record.backend} refused input {name} {list(tensor.shape)}: {self._last_error()}"
                )
        outputs = {}
        for spec in self.outputs:
            shape = spec.resolve(sizes) or tuple(context.get_tensor_shape(spec.name))
            outputs[spec.name] = torch.empty(shape, dtype=spec.torch_dtype, device=self.device)
            if not context.set_tensor_address(spec.name, outputs[spec.name].data_ptr()):
                raise BackendError(
                    f"{self.record.backend} refused output {spec.name} {list(shape)}: {self._last_error()}"
                )
        prepared = _Prepared(context, held, outputs, int(context.update_device_memory_size_for_shapes()))
        with self._arena.lock:
            self._arena.wait(stream)
            self._place_scratch(prepared, stream)
            self._arena.used_by(stream)
        self._keep_kernels()
        return prepared

    def _place_scratch(self, prepared: _Prepared, stream: torch.cuda.Stream) -> None:
        """Bind the context to the arena's block, if that has moved since, and record its CUDA graph there."""
        block = self._arena.block(prepared.scratch_bytes)
        if prepared.scratch is block:
            return
        prepared.graph, prepared.scratch = None, block
        prepared.context.set_device_memory(block.data_ptr(), block.numel())
        # The first run picks kernels and allocates, neither of which a CUDA graph can record.
        self._enqueue(prepared.context, stream)
        stream.synchronize()
        prepared.graph = self._record_graph(prepared.context, stream)

    def _create_context(self) -> Any:
        trt = select(self.record.backend)
        user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(self._engine, "create_runtime_config"):
            return self._engine.create_execution_context(user_managed)
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user_managed)
        # TensorRT-RTX finishes its kernels on this GPU. By default it runs general ones meanwhile, and a CUDA graph
        # would keep those for good: better to wait once.
        strategy = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategy is not None:
            config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        if hasattr(config, "create_runtime_cache"):
            if self._kernels is None:
                self._kernels = config.create_runtime_cache()
                self._known_kernels = read_cache(self._kernel_file())
                if self._known_kernels is not None and not self._kernels.deserialize(self._known_kernels):
                    self._known_kernels = None
            config.set_runtime_cache(self._kernels)
        return self._engine.create_execution_context(config)

    def _record_graph(self, context: Any, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph | None:
        """The run as a CUDA graph, or None, with a line, where the engine holds something that cannot be recorded."""
        import torch

        capturable = getattr(context, "is_stream_capturable", None)
        if capturable is not None and not capturable(stream.cuda_stream):
            self._tell_of_no_graph("the engine says that it cannot be captured")
            return None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                self._enqueue(context, stream)
        except (BackendError, RuntimeError) as error:
            torch.cuda.synchronize(self.device)
            self._tell_of_no_graph(reason_of(error, 200))
            return None
        return graph

    def _tell_of_no_graph(self, reason: str) -> None:
        warnings.warn(
            f"{self.directory} runs without a CUDA graph, kernel by kernel, which is slower: {reason}",
            SlowerWarning,
            stacklevel=2,
        )

    def _enqueue(self, context: Any, stream: torch.cuda.Stream) -> None:
        if not context.execute_async_v3(stream.cuda_stream):
            raise BackendError(
                f"{self.record.backend} failed while running {self.directory / ENGINE_FILE}: {self._last_error()}"
            )
