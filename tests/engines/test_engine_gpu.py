"""What only a GPU can show: TensorRT sessions against PyTorch on the same device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from f3prune.core.errors import BackendError
from f3prune.engines import BuildConfig, EngineDenoiser, Session, build_engine, open_session, parity
from f3prune.engines.backends import find_gpu
from f3prune.engines.backends.trt_flavour import require_installed
from f3prune.families import family_of

_GPU = find_gpu()


def _why_not() -> str | None:
    """Why these tests cannot run here."""
    if isinstance(_GPU, str):
        return f"needs an NVIDIA GPU, but {_GPU}"
    if not torch.cuda.is_available():
        return f"needs torch with CUDA, but torch {torch.__version__} has none that works"
    return None


_REASON = _why_not()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(_REASON is not None, reason=_REASON or "")]
GraphMaker = Callable[..., Path]


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def session(request: pytest.FixtureRequest, cogvideox: Any, tmp_path: Path) -> Iterator[Session]:
    try:
        require_installed(request.param)
    except BackendError as error:
        pytest.skip(str(error))
    build_engine(cogvideox.onnx, tmp_path / "engine", BuildConfig(backend=request.param))
    try:
        opened = open_session(tmp_path / "engine")
        opened.activate()
    except BackendError as error:
        if "one process runs one TensorRT flavour" in str(error):
            pytest.skip(f"{error}; run with -k {request.param}")
        if "does not run on" in str(error):
            pytest.skip(str(error))
        raise
    with opened:
        yield opened


def _inputs(cogvideox: Any, batch: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    inputs = family_of(cogvideox.transformer).synthetic_inputs(
        cogvideox.transformer, cogvideox.latents, batch, generator
    )
    return {name: value.cuda() for name, value in inputs.items()}


def test_the_engine_computes_what_pytorch_does(cogvideox: Any, session: Session) -> None:
    """Two batch sizes by turns: each has a CUDA graph of its own, and replays must not mix them up."""
    denoiser = EngineDenoiser(cogvideox.config, session)
    for seed, batch in enumerate((2, 1, 2, 1, 2)):
        inputs = _inputs(cogvideox, batch, seed)
        with torch.no_grad():
            expected = cogvideox.transformer(**{name: value.cpu() for name, value in inputs.items()}).sample
        sample = denoiser(**inputs).sample
        assert sample.is_cuda
        assert parity(expected, sample).rel_l2 < 1e-3


def test_results_are_not_overwritten_by_later_runs(cogvideox: Any, session: Session) -> None:
    denoiser = EngineDenoiser(cogvideox.config, session)
    first = denoiser(**_inputs(cogvideox, 2, 0)).sample
    kept = first.clone()
    denoiser(**_inputs(cogvideox, 2, 1))
    assert torch.equal(first, kept)


def test_a_pipeline_makes_the_same_video_on_the_engine(cogvideox: Any, session: Session) -> None:
    with torch.no_grad():
        expected = cogvideox.generate(cogvideox.pipeline(cogvideox.transformer))
        video = cogvideox.generate(cogvideox.pipeline(EngineDenoiser(cogvideox.config, session)))
    assert parity(expected, video).rel_l2 < 1e-2


def test_contexts_share_scratch_memory_sized_for_their_shapes(cogvideox: Any, session: Session) -> None:
    """Batch 1, then 2: the second needs more, and the first one's graph is recorded again at the new address."""
    denoiser = EngineDenoiser(cogvideox.config, session)
    first = denoiser(**_inputs(cogvideox, 1, 0)).sample
    denoiser(**_inputs(cogvideox, 2, 1))
    again = denoiser(**_inputs(cogvideox, 1, 0)).sample
    assert parity(first, again).rel_l2 < 1e-6
    prepared = list(session._prepared.values())
    assert (
        prepared[0].scratch_bytes < prepared[1].scratch_bytes or prepared[1].scratch_bytes < prepared[0].scratch_bytes
    )
    assert len({kept.scratch.data_ptr() for kept in prepared}) == 1
    assert session.graphs_recorded == len(prepared)


def test_compiled_kernels_are_kept_for_the_next_session(cogvideox: Any, session: Session, own_cache: Path) -> None:
    if session.record.backend != "tensorrt-rtx":
        pytest.skip("TensorRT compiles kernels when it builds")
    expected = EngineDenoiser(cogvideox.config, session)(**_inputs(cogvideox, 1, 0)).sample
    (kept,) = (own_cache.parent / "kernels").iterdir()
    assert kept.stat().st_size > 0
    with open_session(session.directory) as second:
        found = EngineDenoiser(cogvideox.config, second)(**_inputs(cogvideox, 1, 0)).sample
        assert second._known_kernels is not None
    assert parity(expected, found).rel_l2 < 1e-6


def test_streamed_weights_compute_the_same(cogvideox: Any, session: Session, tmp_path: Path) -> None:
    expected = EngineDenoiser(cogvideox.config, session)(**_inputs(cogvideox, 1, 0)).sample
    config = BuildConfig(session.record.backend, weight_streaming=1e-6)
    build_engine(cogvideox.onnx, tmp_path / "streamed", config)
    with open_session(tmp_path / "streamed") as streamed:
        assert streamed._engine.weight_streaming_budget_v2 == int(1e-6 * 2**30)
        found = EngineDenoiser(cogvideox.config, streamed)(**_inputs(cogvideox, 1, 0)).sample
    assert parity(expected, found).rel_l2 < 1e-4


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="the installed onnxruntime has no CUDA provider: pip install onnxruntime-gpu",
)
def test_onnx_runtime_on_the_gpu(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine")
    inputs = {"hidden_states": torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))}
    with open_session(tmp_path / "engine", "cpu") as on_cpu, open_session(tmp_path / "engine", "cuda") as on_gpu:
        expected, sample = on_cpu.run(inputs)["sample"], on_gpu.run(inputs)["sample"]
    assert sample.is_cuda
    assert parity(expected, sample).rel_l2 < 1e-3
