"""One session interface for three backends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from f3prune.core.errors import ArtifactError, BackendError, InputError
from f3prune.core.tensors import TensorSpec
from f3prune.engines._record import EngineRecord, read_record, verify_files
from f3prune.engines.session._specs import bind_shapes

if TYPE_CHECKING:
    import torch


class Session(ABC):
    """An engine that runs. A context manager; it loads on entry or at its first run, and refuses to run once closed.

    Attributes:
        directory: of the engine.
        record: its ``engine.json``.
        device: where inputs are taken and outputs are given.
        shapes_kept: for how many sets of input shapes it keeps what a run needs; guidance needs one, sometimes two.
    """

    shapes_kept: ClassVar[int] = 2

    def __init__(self, directory: Path, record: EngineRecord, device: torch.device) -> None:
        """Opens nothing yet; subclasses check that the backend can run here at all."""
        self.directory = directory
        self.record = record
        self.device = device
        self._active = False
        self._closed = False
        self._names = tuple(spec.name for spec in record.inputs)
        self._prepared: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        # What is prepared is bound to one run's memory at a time.
        self._running = threading.Lock()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the engine takes; symbolic dimensions by name."""
        return self.record.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the engine gives."""
        return self.record.outputs

    @property
    def graphs_recorded(self) -> int:
        """For how many sets of input shapes a run replays a recorded CUDA graph; 0 where the backend records none."""
        return 0

    def activate(self) -> None:
        """Load the engine now instead of at the first run. The files are hashed before anything parses them.

        Raises:
            ArtifactError: a file was cut short or altered.
            BackendError: the backend cannot run it here.
            InputError: the session is closed.
        """
        if self._closed:
            raise InputError(f"the session of {self.directory} is closed: open it again with open_session")
        if not self._active:
            verify_files(self.record, self.directory)
            self._load()
            self._active = True

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the engine once. Inputs that are contiguous and on the device are read where they are.

        Args:
            inputs: every input by name, in the dtype and shape of its spec; moved to the device if they are elsewhere.

        Returns:
            every output by name, in memory that no later run touches.

        Raises:
            InputError: a name, dtype or shape is not what the engine was built for; or the session is closed.
            ArtifactError, BackendError: see :meth:`activate`.
        """
        if not self._active:
            self.activate()
        with self._running:
            return self._run_once(inputs)

    def _run_once(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # A missing or unknown name has no key of its own: it is left to the check.
        named = [(name, inputs[name]) for name in self._names if name in inputs]
        key = (len(inputs), *[(name, tensor.shape, tensor.dtype) for name, tensor in named])
        prepared = self._prepared.get(key)
        sizes = bind_shapes(self.inputs, inputs, self.record.ranges) if prepared is None else None
        placed = {name: self._placed(tensor) for name, tensor in named}
        if sizes is not None:
            prepared = self._prepared[key] = self._prepare(placed, sizes)
            if len(self._prepared) > self.shapes_kept:
                self._discard(self._prepared.popitem(last=False)[1])
        elif len(self._prepared) > 1:
            self._prepared.move_to_end(key)
        return self._run(prepared, placed)

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.requires_grad:
            tensor = tensor.detach()
        if tensor.device != self.device:
            tensor = tensor.to(self.device)
        return tensor.contiguous()

    def bind(self, inputs: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]) -> Callable[[], None]:
        """Fix the memory of every input and output, and get a function that runs the engine on it.

        For loops that call an engine thousands of times: names and shapes are checked once. An input and an output may
        share one tensor, as a cache that a step writes into does; where the backend allows, nothing is copied then.

        Args:
            inputs: every input by name, contiguous and on the session's device; later values are written into them.
            outputs: likewise every output.

        Raises:
            InputError: a name, dtype, shape or device is not what the engine was built for; or the session is closed.
            ArtifactError, BackendError: see :meth:`activate`.
        """
        self.activate()
        sizes = bind_shapes(self.inputs, inputs, self.record.ranges)
        for spec in self.outputs:
            given, wanted = outputs.get(spec.name), spec.resolve(sizes)
            if (
                given is None
                or (wanted is not None and tuple(given.shape) != wanted)
                or given.dtype != spec.torch_dtype
            ):
                found = "none" if given is None else f"{given.dtype} {list(given.shape)}"
                raise InputError(f"output {spec.name} is bound to {found}, expected {spec.dtype} {wanted}")
        for name, tensor in (*inputs.items(), *outputs.items()):
            if not tensor.is_contiguous() or tensor.device.type != self.device.type:
                raise InputError(f"{name} must be contiguous and on {self.device} to be bound")
        return self._bind(dict(inputs), dict(outputs), sizes)

    def _bind(
        self, inputs: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor], sizes: dict[str, int]
    ) -> Callable[[], None]:
        """What a backend without a way of its own does: run, then copy. It does not alias inputs and outputs."""

        prepared = self._prepare(inputs, sizes)

        def step() -> None:
            with self._running:
                for name, tensor in self._run(prepared, inputs).items():
                    outputs[name].copy_(tensor)

        return step

    def close(self) -> None:
        """Free the engine. Closing twice is allowed."""
        if self._active:
            self._prepared.clear()
            self._unload()
            self._active = False
        self._closed = True

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _load(self) -> None:
        """Load the engine; its files have just been verified."""

    @abstractmethod
    def _unload(self) -> None:
        """Free what :meth:`_load` took."""

    @abstractmethod
    def _prepare(self, inputs: dict[str, torch.Tensor], sizes: dict[str, int]) -> Any:
        """What runs with inputs of these shapes need; they are checked, contiguous and on the device."""

    def _discard(self, prepared: Any) -> None:
        """Wait for what is prepared and about to be dropped, whose last run may still be under way on a GPU."""
        del prepared

    @abstractmethod
    def _run(self, prepared: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run with inputs that are checked, contiguous and on the device."""


def open_session(
    engine_directory: Path | str,
    device: torch.device | str | None = None,
    *,
    masks_digest: str | None = None,
    graph: str | None = None,
) -> Session:
    """Open the engine in ``engine_directory``.

    Args:
        engine_directory: what ``build_engine`` wrote.
        device: ``cpu`` or ``cuda``; by default the GPU where there is one that the backend can use.
        masks_digest: of the masks the engine must have been pruned with; None does not ask.
        graph: SHA-256 of the ONNX file the engine must have been built from; None does not ask.

    Raises:
        ArtifactError: the engine is unfinished, cut short, altered, or was made from other inputs than expected.
        BackendError: its backend is not installed, has another version than built it, or cannot run here.
        InputError: ``device`` is neither a CPU nor a GPU.
    """
    import torch

    if device is not None and torch.device(device).type not in ("cpu", "cuda"):
        raise InputError(f"device {device} is neither cpu nor cuda")
    directory = Path(engine_directory)
    record = read_record(directory)
    if masks_digest is not None and record.masks_digest != masks_digest:
        raise ArtifactError(
            f"the engine in {directory} was built with masks {_short(record.masks_digest)}, "
            f"expected {_short(masks_digest)}: run `export(...)` and `build(...)` again"
        )
    if graph is not None and record.graph != graph:
        raise ArtifactError(
            f"the engine in {directory} was built from graph {_short(record.graph)}, "
            f"expected {_short(graph)}: run `build(...)` again"
        )
    for name, entry in record.files.items():
        path = directory / name
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            found = (
                "is missing"
                if size is None
                else f"has {size} bytes, expected {entry['bytes']}: it was cut short or altered"
            )
            raise ArtifactError(f"{path} {found}; run `build(...)` again")
    if record.backend == "onnxruntime":
        from f3prune.engines.backends.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession(directory, record, device)
    from f3prune.engines.backends.tensorrt import TensorRTSession

    return TensorRTSession(directory, record, device)


def require_version(directory: Path, record: EngineRecord, installed: str) -> None:
    """Check that the backend that built an engine is the one that is installed.

    Raises:
        BackendError: it has another version.
    """
    if installed != record.backend_version:
        raise BackendError(
            f"the engine in {directory} was built by {record.backend} {record.backend_version}, "
            f"but {installed} is installed: run `build(...)` again"
        )


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"
