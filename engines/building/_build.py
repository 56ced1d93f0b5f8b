"""Build an engine, or find that it is already there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from f3prune.core.atomic_files import atomic_write
from f3prune.core.choices import TURING
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.tensors import GRAPH_FILE, TensorSpec
from f3prune.engines._graph import Graph, read_graph
from f3prune.engines._record import RECORD, EngineRecord, describe_files, read_record, verify_files, write_record
from f3prune.engines.backends import require_gpu
from f3prune.engines.building._cache import cache_directory, distrust, fetch, store
from f3prune.engines.building._config import BuildConfig
from f3prune.engines.building._worker_call import Progress, run_job


def build_engine(
    onnx_path: Path | str,
    directory: Path | str,
    config: BuildConfig | None = None,
    masks_digest: str | None = None,
    progress: Progress | None = None,
) -> EngineRecord:
    """Build the engine of ``onnx_path`` into ``directory``.

    An engine that is already there, or in the cache, is used only if everything it depends on is the same (graph,
    weights, masks, shapes, backend and its version, target GPUs, flags) and its files match their hashes.
    ``engine.json`` goes first and comes back last, so a directory that holds one holds a finished engine.

    Args:
        onnx_path: the exported graph; its external data lies beside it.
        directory: made if it is missing.
        config: what to build for.
        masks_digest: of the masks the graph must have been pruned with; None takes the graph's own word.
        progress: called with ``(fraction, phase)``.

    Returns:
        the engine's record; ``origin`` says whether it was ``built``, came from the ``cache`` or was ``kept``.

    Raises:
        ArtifactError: the graph is missing, broken, or was pruned with other masks.
        BackendError: the backend is not installed or cannot build here.
        BuildError: the backend refused the graph.
        InputError: the configuration does not fit the graph.
    """
    config = config or BuildConfig()
    directory = Path(directory)
    graph = read_graph(onnx_path)
    plan = plan_engine(graph, config, masks_digest)
    if kept := _kept(plan, directory):
        _finish(progress, "engine is up to date")
        return kept
    directory.mkdir(parents=True, exist_ok=True)
    earlier = _files_of(directory)
    (directory / RECORD).unlink(missing_ok=True)
    # ONNX Runtime's engine is the graph itself: a second copy in the cache would save nothing.
    cache = cache_directory(config.cache_directory) if config.cache and config.backend != "onnxruntime" else None
    if cache is not None and progress is not None and (why := distrust(cache)):
        progress(0.0, f"the engine cache is not used: {why}")
    cached = fetch(plan, cache, directory) if cache else None
    if cached is not None:
        record = replace(plan, files=cached.files, built=cached.built, origin="cache")
    else:
        names, built = _build(graph, plan, config, directory, progress)
        after = read_graph(onnx_path)
        if (after.sha256, after.weights) != (graph.sha256, graph.weights):
            raise ArtifactError(f"{onnx_path} changed while its engine was being built: run `build(...)` again")
        record = replace(plan, files=describe_files(directory, names), built=built, origin="built")
        if cache:
            store(record, cache, directory)
    for name in earlier - set(record.files):
        (directory / name).unlink(missing_ok=True)
    write_record(record, directory)
    _finish(progress, "engine found in the cache" if cached else "engine built")
    return record


def plan_engine(graph: Graph, config: BuildConfig, masks_digest: str | None = None) -> EngineRecord:
    """Everything the engine will depend on, before it is built; ``plan.key`` is its cache key.

    Raises:
        ArtifactError: the graph was pruned with masks other than ``masks_digest``.
        BackendError: the backend is not installed, or is ``tensorrt`` on a machine without a GPU.
        InputError: a symbolic dimension of the graph has no range, or a GPU to build for lacks the graph's dtype.
    """
    if masks_digest and graph.masks_digest and masks_digest != graph.masks_digest:
        raise ArtifactError(
            f"{graph.path} was exported with masks {graph.masks_digest[:12]}, "
            f"expected {masks_digest[:12]}: run `export(...)` again"
        )
    if config.backend == "onnxruntime":
        from f3prune.engines.backends.onnxruntime import installed_version

        version, device, capabilities = installed_version(), "", []
    else:
        from f3prune.engines.backends import trt_flavour

        version = trt_flavour.installed_version(config.backend)
        # TensorRT times kernels on the GPU at hand, so its engine belongs to that GPU.
        device = str(require_gpu("building a tensorrt engine")) if config.backend == "tensorrt" else ""
        capabilities = trt_flavour.targets(config.compute_capabilities) if config.backend == "tensorrt-rtx" else []
        if graph.dtype != "fp16" and TURING in capabilities:
            raise InputError(
                f"{graph.path} is in {graph.dtype}, but for compute capability {TURING} (Turing) tensorrt-rtx compiles "
                f"matrix products in fp16 alone: run `export(dtype='fp16')`, or leave {TURING} out of "
                f"`compute_capabilities`"
            )
    symbolic = {name for spec in graph.inputs for name in spec.symbols}
    ranges = {name: list(config.range_of(name)) for name in sorted(symbolic)}
    return EngineRecord(
        backend=config.backend,
        backend_version=version,
        graph=graph.sha256,
        weights=graph.weights,
        masks_digest=masks_digest or graph.masks_digest,
        dtype=graph.dtype,
        ranges=ranges,
        profiles={spec.name: [_shape(spec, ranges, end) for end in range(3)] for spec in graph.inputs if spec.symbols},
        compute_capabilities=capabilities,
        device=device,
        flags=config.flags(),
        inputs=graph.inputs,
        outputs=graph.outputs,
        metadata=graph.metadata,
    )


def _shape(spec: TensorSpec, ranges: dict[str, list[int]], end: int) -> list[int]:
    return list(spec.resolve({name: bounds[end] for name, bounds in ranges.items()}) or ())


def _kept(plan: EngineRecord, directory: Path) -> EngineRecord | None:
    try:
        record = read_record(directory)
        if record.key != plan.key:
            return None
        verify_files(record, directory)
    except ArtifactError:
        return None
    return replace(record, origin="kept")


def _build(
    graph: Graph, plan: EngineRecord, config: BuildConfig, directory: Path, progress: Progress | None
) -> tuple[list[str], dict[str, Any]]:
    if config.backend == "onnxruntime":
        from f3prune.engines.backends.onnxruntime import write_graph

        names, facts = write_graph(graph, directory, config.fused_attention)
        try:
            built = run_job({"backend": config.backend, "onnx": str(directory / GRAPH_FILE)}, progress)
        except BaseException:
            for name in names:
                (directory / name).unlink(missing_ok=True)
            raise
        return names, {**built, **facts}

    from f3prune.engines.backends.tensorrt import ENGINE_FILE

    with atomic_write(directory / ENGINE_FILE) as temporary:
        built = run_job(
            {
                "backend": config.backend,
                "onnx": str(graph.path.resolve()),
                "output": str(temporary.resolve()),
                "config": config.to_json(),
                "profiles": plan.profiles,
            },
            progress,
        )
    return [ENGINE_FILE], built


def _files_of(directory: Path) -> set[str]:
    """Files of an earlier engine in ``directory``, so that none of them outlives it there."""
    try:
        return set(read_record(directory).files)
    except ArtifactError:
        return set()


def _finish(progress: Progress | None, phase: str) -> None:
    if progress is not None:
        progress(1.0, phase)
