from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from onnx import TensorProto

from f3prune.core.errors import ArtifactError, BackendError, BuildError, InputError
from f3prune.engines import BuildConfig, build_engine, open_session, parity
from f3prune.engines._record import write_record
from f3prune.engines.backends import Gpu, find_gpu
from f3prune.engines.backends.trt_flavour import require_supported, runs_on, targets

GraphMaker = Callable[..., Path]


def expected(onnx_path: Path, hidden_states: torch.Tensor) -> torch.Tensor:
    import onnx
    from onnx import numpy_helper

    weight = torch.from_numpy(numpy_helper.to_array(onnx.load(str(onnx_path)).graph.initializer[0]).copy())
    return (hidden_states @ weight).softmax(-1)


@pytest.mark.parametrize("batch", [1, 2])
def test_onnx_runtime_computes_what_pytorch_does(make_graph: GraphMaker, tmp_path: Path, batch: int) -> None:
    onnx = make_graph()
    build_engine(onnx, tmp_path / "engine")
    hidden_states = torch.randn(batch, 4, 8, generator=torch.Generator().manual_seed(0))
    with open_session(tmp_path / "engine") as session:
        assert [str(spec) for spec in session.inputs] == ["hidden_states float32[batch, 4, 8]"]
        sample = session.run({"hidden_states": hidden_states})["sample"]
    assert parity(expected(onnx, hidden_states), sample).rel_l2 < 1e-6


def test_half_precision_is_bound_without_conversion(make_graph: GraphMaker, tmp_path: Path) -> None:
    onnx = make_graph(element=TensorProto.FLOAT16)
    assert build_engine(onnx, tmp_path / "engine").dtype == "fp16"
    hidden_states = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)).half()
    sample = open_session(tmp_path / "engine").run({"hidden_states": hidden_states})["sample"]
    assert sample.dtype == torch.float16
    assert parity(expected(onnx, hidden_states), sample).rel_l2 < 2e-3


def test_bfloat16_on_the_cpu_is_refused_when_it_is_built(make_graph: GraphMaker, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("the CUDA provider may have these kernels")
    with pytest.raises(BuildError, match="lacks bfloat16 kernels, export fp32 or fp16"):
        build_engine(make_graph(element=TensorProto.BFLOAT16, operator="Sin"), tmp_path / "engine")


def test_results_are_not_overwritten_by_later_runs(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine")
    with open_session(tmp_path / "engine") as session:
        first = session.run({"hidden_states": torch.zeros(2, 4, 8)})["sample"]
        kept = first.clone()
        session.run({"hidden_states": torch.ones(2, 4, 8)})
    assert torch.equal(first, kept)


def test_inputs_may_be_strided_or_need_gradients(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine")
    hidden_states = torch.randn(2, 8, 4).mT.requires_grad_()
    with open_session(tmp_path / "engine") as session:
        strided = session.run({"hidden_states": hidden_states})["sample"]
        packed = session.run({"hidden_states": hidden_states.detach().contiguous()})["sample"]
    assert torch.equal(strided, packed)


def test_a_session_loads_late_and_never_again_after_close(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine")
    session = open_session(tmp_path / "engine")
    inputs = {"hidden_states": torch.zeros(2, 4, 8)}
    session.run(inputs)
    session.close()
    session.close()
    for use in (session.activate, lambda: session.run(inputs), session.__enter__):
        with pytest.raises(InputError, match="is closed"):
            use()


def test_wrong_inputs_are_refused(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine")
    with open_session(tmp_path / "engine") as session:
        with pytest.raises(InputError, match="batch is 3, but the engine was built for batch 1 to 2"):
            session.run({"hidden_states": torch.zeros(3, 4, 8)})
        with pytest.raises(InputError, match="float64, the engine takes hidden_states float32"):
            session.run({"hidden_states": torch.zeros(2, 4, 8, dtype=torch.float64)})
    # What the message advises.
    build_engine(make_graph(), tmp_path / "wider", BuildConfig(batch=(1, 2, 3)))
    with open_session(tmp_path / "wider") as session:
        session.run({"hidden_states": torch.zeros(3, 4, 8)})


def test_devices(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine")
    assert open_session(tmp_path / "engine", "cpu").device == torch.device("cpu")
    with pytest.raises(InputError, match="device meta is neither cpu nor cuda"):
        open_session(tmp_path / "engine", "meta")
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="device cuda was asked for, but"):
            open_session(tmp_path / "engine", "cuda")


def test_tensorrt_does_not_run_on_the_cpu(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine", BuildConfig(backend="tensorrt-rtx"))
    with pytest.raises(BackendError, match="runs on a GPU, not on device cpu"):
        open_session(tmp_path / "engine", "cpu")


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt-rtx"])
def test_an_engine_of_another_version_is_refused(
    make_graph: GraphMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: Literal["onnxruntime", "tensorrt-rtx"],
) -> None:
    from f3prune.engines.backends import tensorrt

    monkeypatch.setattr(tensorrt, "require_gpu", lambda what, index: Gpu("NVIDIA GeForce RTX 4090", "8.9"))
    record = build_engine(make_graph(), tmp_path / "engine", BuildConfig(backend=backend))
    write_record(replace(record, backend_version="0.9"), tmp_path / "engine")
    with pytest.raises(
        BackendError, match=rf"was built by {backend} 0\.9, but {record.backend_version} is installed: run `build"
    ):
        open_session(tmp_path / "engine")


def test_an_engine_for_another_gpu_is_refused(
    make_graph: GraphMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks behind the driver's, with a GPU that only the probe believes in."""
    from f3prune.engines.backends import tensorrt

    config = BuildConfig(backend="tensorrt-rtx", compute_capabilities=("8.9",))
    record = build_engine(make_graph(), tmp_path / "engine", config)
    monkeypatch.setattr(tensorrt, "require_gpu", lambda what, index: Gpu("NVIDIA GeForce RTX 5090", "12.0"))
    with pytest.raises(BackendError, match=r"compiled for 8\.9, but this GPU is .*`compute_capabilities=\('12\.0',\)`"):
        open_session(tmp_path / "engine")
    elsewhere = replace(record, compute_capabilities=targets(()), device="NVIDIA L4 (8.9)")
    with pytest.raises(BackendError, match=r"was tuned on NVIDIA L4 \(8\.9\)"):
        tensorrt.TensorRTSession(tmp_path / "engine", elsewhere, None)
    monkeypatch.setattr(tensorrt, "require_gpu", lambda what, index: Gpu("NVIDIA GeForce RTX 2080", "7.5"))
    with pytest.raises(BackendError, match=r"for 8\.0, 8\.6, 8\.9, 12\.0 and later, .*capabilities=\('7\.5',\)`"):
        tensorrt.TensorRTSession(tmp_path / "engine", elsewhere, None)


@pytest.mark.parametrize(
    ("named", "capability", "runs"),
    [
        ((), "7.5", False),
        ((), "8.0", True),
        ((), "8.9", True),
        ((), "9.0", False),
        ((), "10.0", False),
        ((), "12.0", True),
        ((), "12.1", True),
        (("7.5",), "7.5", True),
        (("12.0",), "12.1", False),
    ],
)
def test_an_engine_runs_on_what_was_named_or_by_default(named: tuple[str, ...], capability: str, runs: bool) -> None:
    assert runs_on(targets(named), capability) is runs


@pytest.mark.skipif(not isinstance(find_gpu(), str), reason="this machine has a GPU and a driver")
def test_what_tensorrt_says_about_an_engine_is_passed_on(
    make_graph: GraphMaker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real library on a real engine, past the check for a driver, and nothing printed."""
    from f3prune.engines.backends.tensorrt import load_engine

    record = build_engine(make_graph(), tmp_path / "engine", BuildConfig(backend="tensorrt-rtx"))
    path = tmp_path / "engine" / "denoiser.engine"
    sha256 = record.files[path.name]["sha256"]
    with pytest.raises(ArtifactError, match="was altered"):
        load_engine("tensorrt-rtx", path, "0" * 64, [])
    with pytest.raises(BackendError, match=r"tensorrt-rtx could not load .*denoiser\.engine: .*driver"):
        load_engine("tensorrt-rtx", path, sha256, [])
    assert capfd.readouterr() == ("", "")


def test_one_process_runs_one_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    from f3prune.engines.backends import trt_flavour

    rtx = trt_flavour.select("tensorrt-rtx")
    importlib.import_module("polygraphy.backend.trt")
    assert rtx.__version__ == trt_flavour.installed_version("tensorrt-rtx")
    monkeypatch.setattr(trt_flavour, "require_installed", lambda flavour: None)
    with pytest.raises(BackendError, match="this process already runs tensorrt-rtx"):
        trt_flavour.select("tensorrt")


def test_bound_memory_is_read_and_written_in_place(make_graph: GraphMaker, tmp_path: Path) -> None:
    onnx = make_graph()
    build_engine(onnx, tmp_path / "engine")
    hidden_states, sample = torch.zeros(2, 4, 8), torch.empty(2, 4, 8)
    with open_session(tmp_path / "engine") as session:
        step = session.bind({"hidden_states": hidden_states}, {"sample": sample})
        for seed in range(3):
            hidden_states.copy_(torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed)))
            step()
            assert parity(expected(onnx, hidden_states), sample).rel_l2 < 1e-6


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (torch.empty(2, 4, 9), r"expected float32 \(2, 4, 8\)"),
        (torch.empty(2, 4, 8).half(), "torch.float16"),
        (None, "bound to none"),
        (torch.empty(2, 8, 4).transpose(1, 2), "contiguous"),
    ],
)
def test_memory_that_does_not_fit_is_not_bound(
    make_graph: GraphMaker, tmp_path: Path, sample: torch.Tensor | None, said: str
) -> None:
    build_engine(make_graph(), tmp_path / "engine")
    with open_session(tmp_path / "engine") as session, pytest.raises(InputError, match=said):
        session.bind({"hidden_states": torch.zeros(2, 4, 8)}, {} if sample is None else {"sample": sample})


@pytest.mark.parametrize(("capability", "runs"), [("8.9", True), ("12.2", True), ("9.0", False), ("7.0", False)])
def test_tensorrt_rtx_says_which_gpus_it_leaves_out(capability: str, runs: bool) -> None:
    """As seen on an H200: the engine builds, and deserialising refuses capability 9.0."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    gpu = Gpu("NVIDIA H200", capability)
    if runs:
        require_supported("tensorrt-rtx", gpu)
        return
    with pytest.raises(BackendError, match=rf"does not run on NVIDIA H200 \({capability}\).*`backend='tensorrt'` or "):
        require_supported("tensorrt-rtx", gpu)
