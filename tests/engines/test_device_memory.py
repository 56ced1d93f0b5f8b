"""What TensorRT sessions share and keep: scratch memory, compiled kernels, the flags of their engines."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from f3prune.core.errors import InputError
from f3prune.engines import BuildConfig
from f3prune.engines.backends import Gpu
from f3prune.engines.backends.device_memory import ALIGNMENT, DeviceArena, arena_of
from f3prune.engines.backends.runtime_cache import cache_file, read_cache, write_cache


def test_one_block_serves_all_and_only_grows() -> None:
    arena = DeviceArena(torch.device("cpu"))
    small = arena.block(1000)
    assert small.numel() >= 1000
    assert arena.block(10) is small
    large = arena.block(5000)
    assert large is not small
    assert arena.block(1000) is large
    for block in (small, large, DeviceArena(torch.device("cpu")).block(0)):
        assert block.data_ptr() % ALIGNMENT == 0
        assert block.numel() > 0
    assert arena_of(torch.device("cpu")) is arena_of(torch.device("cpu", 0))


def test_kernels_are_kept_by_gpu_version_driver_and_engine(tmp_path: Path) -> None:
    card = Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.1")
    path = cache_file(tmp_path / "engines", card, "1.7.1", "a" * 64)
    others = [
        cache_file(tmp_path / "engines", Gpu("NVIDIA GeForce RTX 4080", "8.9", "13.1"), "1.7.1", "a" * 64),
        cache_file(tmp_path / "engines", Gpu(card.name, "8.9", "13.2"), "1.7.1", "a" * 64),
        cache_file(tmp_path / "engines", card, "1.7.2", "a" * 64),
        cache_file(tmp_path / "engines", card, "1.7.1", "b" * 64),
    ]
    assert len({path, *others}) == 5
    assert read_cache(path) is None
    write_cache(path, b"kernels")
    assert read_cache(path) == b"kernels"
    assert all(read_cache(other) is None for other in others)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"S", content[:32], b""):
        path.write_bytes(damaged)
        assert read_cache(path) is None
    write_cache(path, b"kernels")
    path.parent.chmod(0o777)
    assert read_cache(path) is None
    # A place that cannot be written to is no reason to fail.
    (tmp_path / "file").touch()
    write_cache(tmp_path / "file" / "kernels.bin", b"kernels")


@pytest.mark.parametrize("budget", [None, 0.5])
def test_the_builder_gets_the_flags_that_graphs_and_streaming_need(budget: float | None) -> None:
    """Real TensorRT-RTX objects: a builder, a network, and the configuration that the build makes for them."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from f3prune.engines.backends.tensorrt_build import _builder_config
    from f3prune.engines.backends.trt_flavour import select

    trt = select("tensorrt-rtx")
    from polygraphy.backend.trt import create_network

    config = BuildConfig("tensorrt-rtx", weight_streaming=budget)
    builder, network = create_network(strongly_typed=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made = _builder_config(trt, config, {}, lambda fraction, phase: None)(builder, network)
    assert made.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert made.get_flag(trt.BuilderFlag.WEIGHT_STREAMING) is (budget is not None)
    assert config.flags()["weight_streaming_gib"] == budget


@pytest.mark.parametrize(("backend", "budget"), [("onnxruntime", 1.0), ("tensorrt-rtx", 0.0)])
def test_streaming_needs_tensorrt_and_a_size(backend: str, budget: float) -> None:
    with pytest.raises(InputError, match="`weight_streaming` is"):
        BuildConfig(backend, weight_streaming=budget)  # type: ignore[arg-type]


def test_a_slower_way_is_one_line_on_the_command_line() -> None:
    program = (
        "import warnings; from f3prune.core.quiet import silence; from f3prune.core.errors import SlowerWarning\n"
        "silence(); warnings.warn('no CUDA graph', SlowerWarning); warnings.warn('noise')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "f3prune: no CUDA graph\n"
