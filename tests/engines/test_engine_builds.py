"""Real builds: TensorRT-RTX ahead of time on a machine without a GPU, and ONNX Runtime."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto

from f3prune.core.errors import ArtifactError, BackendError, BuildError, InputError
from f3prune.engines import BuildConfig, EngineRecord, build_engine, open_session, plan_engine, read_record
from f3prune.engines._graph import read_graph
from f3prune.engines.backends import find_gpu
from f3prune.engines.building import run_job

GraphMaker = Callable[..., Path]
RTX = BuildConfig(backend="tensorrt-rtx", compute_capabilities=("8.9", "12.0"))
ORT = BuildConfig()


def test_an_rtx_engine_is_built_without_a_gpu_and_recorded(make_graph: GraphMaker, tmp_path: Path) -> None:
    reports: list[tuple[float, str]] = []
    record = build_engine(make_graph(), tmp_path / "engine", RTX, progress=lambda *report: reports.append(report))
    assert record.origin == "built"
    assert set(record.files) == {"denoiser.engine"}
    assert record.profiles == {"hidden_states": [[1, 4, 8], [2, 4, 8], [2, 4, 8]]}
    assert record.compute_capabilities == ["12.0", "8.9"]
    assert record.masks_digest == "a" * 64
    assert record.built["seconds"] > 0
    assert record.built["peak_bytes"] > 0
    assert read_record(tmp_path / "engine") == record
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) > 1
    # Nothing but the engine and its record is left behind.
    assert {path.name for path in (tmp_path / "engine").iterdir()} == {"denoiser.engine", "engine.json"}


@pytest.mark.skipif(not isinstance(find_gpu(), str), reason="this machine has a GPU and a driver")
def test_an_rtx_engine_without_a_driver_gives_one_line(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine", RTX)
    program = (
        "import sys; from engines import open_session; from f3prune.core.errors import BackendError\n"
        "try:\n    open_session(sys.argv[1])\n"
        "except BackendError as error:\n    print(error)\n    sys.exit(error.exit_code)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "engine")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert "a tensorrt-rtx engine needs an NVIDIA GPU, but this machine has no NVIDIA driver" in done.stdout
    assert "`backend='onnxruntime'`" in done.stdout


def test_models_that_differ_in_weights_alone_never_share_an_engine(
    make_graph: GraphMaker, tmp_path: Path, own_cache: Path
) -> None:
    dense = build_engine(make_graph("dense", seed=0), tmp_path / "dense-engine", RTX)
    pruned = build_engine(make_graph("pruned", seed=1), tmp_path / "pruned-engine", RTX)
    assert dense.graph == pruned.graph
    assert dense.key != pruned.key
    assert pruned.origin == "built"
    assert dense.files["denoiser.engine"]["sha256"] != pruned.files["denoiser.engine"]["sha256"]
    assert sorted(path.name for path in own_cache.iterdir()) == sorted([dense.key, pruned.key])


def test_cached_engines_are_verified_before_reuse(make_graph: GraphMaker, tmp_path: Path, own_cache: Path) -> None:
    onnx = make_graph()
    built = build_engine(onnx, tmp_path / "first", RTX)
    assert build_engine(onnx, tmp_path / "first", RTX).origin == "kept"
    second = build_engine(onnx, tmp_path / "second", RTX)
    assert second.origin == "cache"
    assert second.files == built.files
    assert read_record(tmp_path / "second") == second

    # A flipped byte in the cache: the entry is thrown away and the engine built anew.
    cached = own_cache / built.key / "denoiser.engine"
    content = bytearray(cached.read_bytes())
    cached.unlink()
    content[len(content) // 2] ^= 1
    cached.write_bytes(content)
    third = build_engine(onnx, tmp_path / "third", RTX)
    assert third.origin == "built"
    assert build_engine(onnx, tmp_path / "fourth", RTX).origin == "cache"

    # An entry without its record never finished.
    (own_cache / built.key / "engine.json").unlink()
    shutil.rmtree(tmp_path / "fourth")
    assert build_engine(onnx, tmp_path / "fourth", replace(RTX, cache=False)).origin == "built"
    assert not (own_cache / built.key / "engine.json").exists()


@pytest.mark.parametrize("what", ["cache", "entry", "engine", "owner", "link"])
def test_a_cache_that_others_may_write_to_is_not_used(
    make_graph: GraphMaker, tmp_path: Path, own_cache: Path, what: str
) -> None:
    onnx = make_graph()
    built = build_engine(onnx, tmp_path / "first", RTX)
    assert stat.S_IMODE(own_cache.stat().st_mode) & 0o022 == 0
    entry = own_cache / built.key
    if what == "owner":
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        os.chown(entry, 12345, -1)
    elif what == "link":
        shutil.move(entry, tmp_path / "elsewhere")
        entry.symlink_to(tmp_path / "elsewhere")
    else:
        path = {"cache": own_cache, "entry": entry, "engine": entry / "denoiser.engine"}[what]
        path.chmod(path.stat().st_mode | 0o020)
    said: list[str] = []
    second = build_engine(onnx, tmp_path / "second", RTX, progress=lambda _, phase: said.append(phase))
    assert second.origin == "built"
    if what == "cache":
        (remedy,) = re.findall(r"run (chmod go-w .+)", "\n".join(said))
        subprocess.run(remedy.split(), check=True)
        assert build_engine(onnx, tmp_path / "third", RTX).origin == "cache"


def test_an_engine_in_use_does_not_change_with_the_cache(
    make_graph: GraphMaker, tmp_path: Path, own_cache: Path
) -> None:
    onnx = make_graph()
    built = build_engine(onnx, tmp_path / "first", RTX)
    assert build_engine(onnx, tmp_path / "second", RTX).origin == "cache"
    os.truncate(own_cache / built.key / "denoiser.engine", 10)
    for name in ("first", "second"):
        assert (tmp_path / name / "denoiser.engine").stat().st_size == built.files["denoiser.engine"]["bytes"]


def test_the_key_covers_everything_the_engine_depends_on(make_graph: GraphMaker) -> None:
    graph = read_graph(make_graph())
    base = plan_engine(graph, RTX)
    others = [
        plan_engine(graph, ORT),
        plan_engine(graph, replace(RTX, batch=(1, 2, 4))),
        plan_engine(graph, replace(RTX, compute_capabilities=("8.9",))),
        plan_engine(graph, replace(RTX, tf32=True)),
        plan_engine(graph, replace(RTX, optimization_level=0)),
        plan_engine(graph, replace(RTX, workspace_bytes=1 << 20)),
        replace(base, backend_version="0.0"),
        replace(base, graph="0" * 64),
        replace(base, weights={"denoiser.onnx.data": "0" * 64}),
        replace(base, masks_digest="b" * 64),
        replace(base, dtype="fp16"),
        replace(base, device="another GPU"),
    ]
    keys = {record.key for record in (base, *others)}
    assert len(keys) == len(others) + 1
    same = plan_engine(graph, replace(RTX, compute_capabilities=("12.0", "8.9"), timing_cache="t", cache=False))
    assert same.key == base.key


def test_a_changed_graph_makes_the_engine_stale(make_graph: GraphMaker, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    first = build_engine(make_graph(seed=0), engine, ORT)
    assert build_engine(make_graph(seed=0), engine, ORT).origin == "kept"
    second = build_engine(make_graph(seed=1), engine, ORT)
    assert second.origin == "built"
    assert second.weights != first.weights
    with pytest.raises(ArtifactError, match="was built from graph"):
        open_session(engine, graph="0" * 64)


def test_another_backend_replaces_the_engine(make_graph: GraphMaker, tmp_path: Path) -> None:
    onnx = make_graph()
    build_engine(onnx, tmp_path / "engine", ORT)
    build_engine(onnx, tmp_path / "engine", RTX)
    assert {path.name for path in (tmp_path / "engine").iterdir()} == {"denoiser.engine", "engine.json"}


def test_masks_must_be_the_expected_ones(make_graph: GraphMaker, tmp_path: Path) -> None:
    onnx = make_graph(masks="a" * 64)
    with pytest.raises(ArtifactError, match="was exported with masks aaaaaaaaaaaa, expected bbbbbbbbbbbb"):
        build_engine(onnx, tmp_path / "engine", ORT, masks_digest="b" * 64)
    build_engine(onnx, tmp_path / "engine", ORT, masks_digest="a" * 64)
    open_session(tmp_path / "engine", masks_digest="a" * 64)
    with pytest.raises(ArtifactError, match="was built with masks aaaaaaaaaaaa, expected bbbbbbbbbbbb"):
        open_session(tmp_path / "engine", masks_digest="b" * 64)


def test_an_altered_engine_is_refused(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine", ORT)
    path = tmp_path / "engine" / "denoiser.onnx.data"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.unlink()
    path.write_bytes(content)
    session = open_session(tmp_path / "engine")
    with pytest.raises(ArtifactError, match=r"does not match the SHA-256 in engine\.json"):
        session.activate()


def test_an_engine_cut_short_is_refused(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine", RTX)
    os.truncate(tmp_path / "engine" / "denoiser.engine", 1000)
    with pytest.raises(ArtifactError, match=r"denoiser\.engine has 1000 bytes, expected .* cut short"):
        open_session(tmp_path / "engine")
    # The cache has a copy, not a link.
    assert build_engine(make_graph(), tmp_path / "engine", RTX).origin == "cache"


def test_an_engine_without_a_record_is_unfinished(make_graph: GraphMaker, tmp_path: Path) -> None:
    build_engine(make_graph(), tmp_path / "engine", ORT)
    (tmp_path / "engine" / "engine.json").unlink()
    with pytest.raises(ArtifactError, match="no finished engine"):
        open_session(tmp_path / "engine")


def test_an_edited_or_torn_record_is_refused(make_graph: GraphMaker, tmp_path: Path) -> None:
    record = build_engine(make_graph(), tmp_path / "engine", ORT)
    path = tmp_path / "engine" / "engine.json"
    text = path.read_text()
    assert EngineRecord.from_json(text) == record
    edited = json.loads(text)
    edited["masks_digest"] = "b" * 64
    versioned = {**json.loads(text), "version": 9}
    for wrong in (json.dumps(edited), text[: len(text) // 2], "", "[]", "{}", json.dumps(versioned)):
        path.write_text(wrong)
        with pytest.raises(ArtifactError, match=r"run `build\(\.\.\.\)` again"):
            open_session(tmp_path / "engine")


def test_a_record_cannot_name_files_elsewhere(make_graph: GraphMaker, tmp_path: Path) -> None:
    record = build_engine(make_graph(), tmp_path / "engine", ORT)
    text = replace(record, files={"../onnx/denoiser.onnx": {"sha256": "0" * 64, "bytes": 1}}).to_json()
    with pytest.raises(ArtifactError, match="outside its directory"):
        EngineRecord.from_json(text)


def test_parser_errors_name_the_node(make_graph: GraphMaker, tmp_path: Path) -> None:
    onnx = make_graph(operator="Sofmax")
    with pytest.raises(BuildError, match=r"the ONNX parser refused attend \(Sofmax\)"):
        build_engine(onnx, tmp_path / "engine", RTX)
    assert not list((tmp_path / "engine").iterdir())
    with pytest.raises(BuildError, match=r"onnxruntime refused denoiser\.onnx: .*Sofmax"):
        build_engine(onnx, tmp_path / "engine", ORT)


def test_an_unknown_compute_capability_lists_the_known_ones(make_graph: GraphMaker, tmp_path: Path) -> None:
    config = replace(RTX, compute_capabilities=("9.0",))
    with pytest.raises(BackendError, match=r"does not run on compute capability 9\.0: choose from .*8\.9.*'tensorrt'"):
        build_engine(make_graph(), tmp_path / "engine", config)


def test_turing_has_to_be_named_and_takes_fp16_alone(make_graph: GraphMaker, tmp_path: Path) -> None:
    assert plan_engine(read_graph(make_graph()), BuildConfig("tensorrt-rtx")).compute_capabilities == [
        "8.0",
        "8.6",
        "8.9",
        "12.0+",
    ]
    assert plan_engine(read_graph(make_graph()), ORT).compute_capabilities == []
    turing = BuildConfig("tensorrt-rtx", compute_capabilities=("7.5",), cache=False)
    for element in (TensorProto.BFLOAT16, TensorProto.FLOAT):
        with pytest.raises(InputError, match=r"7\.5 \(Turing\).*in fp16 alone: run `export\(dtype='fp16'\)`"):
            build_engine(make_graph(element=element), tmp_path / "engine", turing)
    half = make_graph(element=TensorProto.FLOAT16)
    assert build_engine(half, tmp_path / "engine", turing).compute_capabilities == ["7.5"]


def test_a_missing_backend_gives_its_install_line(
    make_graph: GraphMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("f3prune.engines.backends.trt_flavour.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"backend tensorrt is not installed: pip install 'f3prune\[tensorrt\]'"):
        build_engine(make_graph(), tmp_path / "engine", BuildConfig(backend="tensorrt"))
    with pytest.raises(BackendError, match=r"tensorrt-rtx is not installed: pip install 'f3prune\[cu12\]', or '.*cu13"):
        build_engine(make_graph(), tmp_path / "engine", RTX)
    monkeypatch.setattr("f3prune.engines.backends.onnxruntime.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="pip install onnxruntime-gpu"):
        build_engine(make_graph(), tmp_path / "engine", ORT)


def test_a_worker_that_dies_is_an_error_with_its_last_words() -> None:
    with pytest.raises(BuildError, match=r"ended with status 1 and no result: .*KeyError"):
        run_job({"backend": "tensorrt-rtx"})


def test_progress_may_stop_a_build(make_graph: GraphMaker, tmp_path: Path) -> None:
    def stop(fraction: float, phase: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(make_graph(), tmp_path / "engine", RTX, progress=stop)
    assert not list((tmp_path / "engine").iterdir())


def test_a_dimension_without_range_is_an_input_error(make_graph: GraphMaker) -> None:
    graph = read_graph(make_graph())
    specs = (replace(graph.inputs[0], shape=("batch", "tokens", 8)),)
    with pytest.raises(InputError, match="'tokens' is dynamic"):
        plan_engine(replace(graph, inputs=specs), ORT)
