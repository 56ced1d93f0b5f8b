"""Build a TensorRT or TensorRT-RTX engine through Polygraphy. Runs inside the build worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from f3prune.core.atomic_files import atomic_write
from f3prune.core.errors import BackendError, BuildError
from f3prune.engines.backends.layer_information import LayerLog, attentions_of, fused_attention, inspected_layers
from f3prune.engines.backends.trt_flavour import select
from f3prune.engines.building import BuildConfig, parse_capability

_MAX_ERRORS = 3


def build_plan(job: Mapping[str, Any], progress: Callable[[float, str], None]) -> dict[str, Any]:
    """Build ``job["onnx"]`` into the file ``job["output"]``; the job also holds ``config`` (JSON) and ``profiles``.

    The engine goes to the file as TensorRT writes it, without a copy in memory.

    Returns:
        ``attention_fused``, how many attentions became one kernel; ``attention_unfused``, the names of the others; and
        ``scratch_bytes``, the device memory of an execution context.

    Raises:
        BuildError: the parser or the builder refused the graph.
        BackendError: a compute capability is not one that the installed version can target.
    """
    config = BuildConfig.from_json(job["config"])
    trt = select(config.backend)
    from polygraphy.backend import trt as polygraphy_trt
    from polygraphy.exception import PolygraphyException

    errors = _ErrorLog(trt)
    # The weights are the parser's: it has to outlive the build.
    builder, network, _parser = _parse(trt, polygraphy_trt, errors, Path(job["onnx"]))
    try:
        builder_config = _builder_config(trt, config, job["profiles"], progress)(builder, network)
    except PolygraphyException as error:
        raise BuildError(
            f"{config.backend} could not build {job['onnx']}: {errors.text() or _one_line(error)}"
        ) from error
    with open(job["output"], "wb") as stream:
        writer = _writer(trt, stream)
        built = builder.build_serialized_network_to_stream(network, builder_config, writer)
        if writer.error is not None:
            raise writer.error
        if not built:
            reason = errors.text() or "no reason given"
            raise BuildError(f"{config.backend} could not build {job['onnx']}: {reason}")
        stream.flush()
        os.fsync(stream.fileno())
    if config.backend == "tensorrt" and config.timing_cache is not None:
        _save_timing_cache(builder_config, Path(config.timing_cache))
    layers = errors.layers.layers
    if layers is None:
        # Printed by TensorRT-RTX alone. TensorRT builds where there is a GPU, so that its engine can be loaded.
        runtime = trt.Runtime(polygraphy_trt.util.get_trt_logger())
        layers = inspected_layers(trt, runtime.deserialize_cuda_engine(Path(job["output"]).read_bytes()))
    found = fused_attention(layers, attentions_of(Path(job["onnx"])))
    facts = {"attention_fused": len(found.fused), "attention_unfused": list(found.unfused)}
    scratch = errors.layers.scratch_bytes
    return facts if scratch is None else {**facts, "scratch_bytes": scratch}


def _save_timing_cache(builder_config: Any, path: Path) -> None:
    cache = builder_config.get_timing_cache()
    if cache is None:
        return
    if path.is_file():
        # Another build may have added to it since this one read it.
        cache.combine(builder_config.create_timing_cache(path.read_bytes()), ignore_mismatch=True)
    with atomic_write(path) as temporary, cache.serialize() as content:
        temporary.write_bytes(content)


def _writer(trt: Any, stream: BinaryIO) -> Any:
    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        error: OSError | None = None

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: Any) -> int:
            # An exception cannot pass through TensorRT; writing less than was asked for ends its build.
            try:
                return stream.write(data)
            except OSError as error:
                self.error = error
                return 0

    return Writer()


class _ErrorLog:
    """TensorRT's error messages and what it says about layers; all of it still reaches Polygraphy's logger."""

    def __init__(self, trt: Any) -> None:
        from polygraphy.backend.trt import util

        self.messages: list[str] = []
        self.layers = LayerLog()
        logger = util.get_trt_logger()
        forward = logger.log

        def log(severity: Any, message: str) -> None:
            if severity in (trt.Logger.ERROR, trt.Logger.INTERNAL_ERROR):
                self.messages.append(_one_line(message))
            self.layers(message)
            forward(severity, message)

        logger.log = log

    def text(self) -> str:
        return "; ".join(self.messages[:_MAX_ERRORS])


def _parse(trt: Any, polygraphy_trt: Any, errors: _ErrorLog, onnx: Path) -> tuple[Any, Any, Any]:
    # Polygraphy's own loader hides the parser when it fails, and with it which node failed.
    builder, network = polygraphy_trt.create_network(strongly_typed=True)
    parser = trt.OnnxParser(network, polygraphy_trt.util.get_trt_logger())
    if not parser.parse_from_file(str(onnx)):
        found = [parser.get_error(index) for index in range(parser.num_errors)]
        details = "; ".join(
            f"{item.node_name() or '?'} ({item.node_operator() or '?'}): {_one_line(item.desc())}"
            for item in found[:_MAX_ERRORS]
        )
        more = f" and {len(found) - _MAX_ERRORS} more" if len(found) > _MAX_ERRORS else ""
        raise BuildError(f"{onnx.name}: the ONNX parser refused {details or errors.text() or 'the file'}{more}")
    return builder, network, parser


def _builder_config(
    trt: Any, config: BuildConfig, profiles: Mapping[str, Any], progress: Callable[[float, str], None]
) -> Any:
    from polygraphy.backend.trt import CreateConfig, PostprocessConfig, Profile

    tree = PhaseTree(progress)

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tree.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tree.step(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            tree.finish(phase_name)

    profile = Profile()
    for name, (smallest, usual, largest) in profiles.items():
        profile.add(name, tuple(smallest), tuple(usual), tuple(largest))
    options: dict[str, Any] = {"profiles": [profile], "progress_monitor": Monitor()}
    if config.optimization_level is not None:
        options["builder_optimization_level"] = config.optimization_level
    if config.workspace_bytes is not None:
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: config.workspace_bytes}
    if config.weight_streaming is not None:
        options["weight_streaming"] = True
    if config.backend == "tensorrt":
        if config.timing_cache is not None and Path(config.timing_cache).is_file():
            options["load_timing_cache"] = config.timing_cache
        return CreateConfig(tf32=config.tf32, **options)

    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    capabilities = [parse_capability(text) for text in config.compute_capabilities]
    known = {name for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    for (major, minor), text in zip(capabilities, config.compute_capabilities, strict=True):
        if f"SM{major}{minor}" not in known:
            supported = ", ".join(sorted(f"{name[2:-1]}.{name[-1]}" for name in known))
            raise BackendError(
                f"tensorrt-rtx {trt.__version__} does not run on compute capability {text}: choose from {supported} "
                f"for `compute_capabilities`, or use `backend='tensorrt'` there"
            )

    def set_flags(builder: Any, network: Any, config_object: Any) -> None:
        if not config.tf32:
            config_object.clear_flag(trt.BuilderFlag.TF32)
        config_object.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    return PostprocessConfig(CreateConfigRTX(compute_capabilities=capabilities or None, **options), func=set_flags)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """TensorRT's nested build phases as one number that only grows.

    Reports ``(fraction of the whole, name of the innermost phase)``.

    A phase counts as its finished steps plus, for the step under way, the part of it that a child phase has done.
    """

    def __init__(self, report: Callable[[float, str], None]) -> None:
        """``report`` is called after every change with a fraction that never falls."""
        self._report = report
        self._phases: dict[str, _Phase] = {}
        self._highest = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase began."""
        self._phases[name] = _Phase(parent, max(steps, 1))
        self._tell(name)

    def step(self, name: str, step: int) -> None:
        """Step number ``step`` (from 0) of a phase is complete."""
        if name in self._phases:
            self._phases[name].done = step + 1
            self._tell(name)

    def finish(self, name: str) -> None:
        """A phase ended."""
        phase = self._phases.get(name)
        if phase is None:
            return
        phase.done = phase.steps
        self._tell(name)
        del self._phases[name]

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        inner = max(
            (self._fraction(child) for child, other in self._phases.items() if other.parent == name), default=0.0
        )
        return min(1.0, (phase.done + (inner if phase.done < phase.steps else 0.0)) / phase.steps)

    def _tell(self, name: str) -> None:
        roots = [root for root, phase in self._phases.items() if phase.parent not in self._phases]
        self._highest = max(self._highest, *(self._fraction(root) for root in roots))
        self._report(self._highest, name)
