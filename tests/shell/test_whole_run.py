"""``f3prune run`` from a pipeline to a report, its resumption, and what happens to files that were tampered with."""

from __future__ import annotations

import html
import html.parser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import report_data
from browser import OFFLINE, chromium, measured, needs_browser
from command_line import Outcome, f3prune
from run_files import FILES, STEPS

from f3prune.bench import speed
from f3prune.calibration import PruneConfig, StagedDenoiser, load_pruned
from f3prune.core.manifest import SEAL, Manifest, seal
from f3prune.core.run_directory import PLACES, RunDirectory, StepPlace
from f3prune.report.build import report
from f3prune.steps.prune import prune


def start(model: Path, run: Path, *more: object) -> Outcome:
    return f3prune("run", model, "-o", run, "--alpha", "0.5", "--steps", 2, "--num-prompts", 2, *more)


@pytest.fixture(scope="module")
def finished(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    run = tmp_path_factory.mktemp("runs") / "demo"
    return run, start(tiny_pipeline, run)


@pytest.fixture
def run(finished: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy that a test may alter."""
    shutil.copytree(finished[0], tmp_path / "demo")
    return tmp_path / "demo"


def row(outcome: Outcome, name: str) -> str:
    """The cell beside ``name`` in the summary."""
    return next(iter(re.findall(rf"│ {name} +│ (.*?) *│", outcome.out)), "")


def test_a_run_makes_everything(finished: tuple[Path, Outcome]) -> None:
    path, outcome = finished
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert not FILES - {file.relative_to(path).as_posix() for file in path.rglob("*")}
    assert not [file for file in path.rglob("*") if file.name.startswith(".tmp-")]
    assert [name for name in STEPS if f"{name} " in row(outcome, "done")] == list(STEPS)
    assert "1 of 2 sites pruned" in row(outcome, "pruned")
    assert "medians of alternating runs" in row(outcome, "speed, engine")
    assert "PSNR" in row(outcome, "video")
    assert str(path / "report.html") in row(outcome, "report")


def test_the_page_of_files_has_every_file(finished: tuple[Path, Outcome]) -> None:
    table = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {Path(name).name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named
    missing = {file.name for file in finished[0].rglob("*") if file.is_file()} - named
    assert not missing


def test_every_entry_stands(finished: tuple[Path, Outcome]) -> None:
    run = RunDirectory.open(finished[0])
    for step in ("calibrate", "masks", "pruned", "onnx", "engine", "dense-onnx", "dense-engine", "generate", "report"):
        assert run.require(step).step == step


def test_the_engine_computes_what_the_pruned_model_does(finished: tuple[Path, Outcome]) -> None:
    found = json.loads((finished[0] / "check.json").read_text())
    assert found["passed"]
    assert max(step["rel_l2"] for step in found["export"]["steps"]) < 1e-4
    assert max(step["rel_l2"] for step in found["pruning"]["steps"]) > 1e-4


class Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "data", "action"}]
        if tag not in {"meta", "img", "input", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(finished: tuple[Path, Outcome]) -> None:
    text = (finished[0] / "report.html").read_text()
    page = Links()
    page.feed(text)
    assert page.open == []
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) == 3
    assert all(link.startswith("data:") for link in files)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(re.findall(r'id="([^"]+)"', text))
    assert "url(" not in text
    assert "@import" not in text
    assert text.count("<script") == 1
    for part in (
        "default-src 'none'",
        "Aggregate Attention Score",
        "transformer_blocks.0.attn1",
        "Parity",
        "Speed",
        "prefers-color-scheme",
    ):
        assert part in html.unescape(text)


@needs_browser
def test_the_page_loads_in_a_browser(finished: tuple[Path, Outcome], tmp_path: Path) -> None:
    done = chromium(tmp_path, finished[0] / "report.html", "--dump-dom", OFFLINE)
    assert "CONSOLE" not in done.stderr
    text = (finished[0] / "report.html").read_text()
    for width in (390, 1280):
        assert measured(tmp_path, text, width, "done(page.documentElement.scrollWidth);") <= width


def test_evaluation_and_sweep_are_reported_while_they_are_current(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory.open(run)
    for step, file, content in (
        ("evaluate", "evaluation.json", report_data.evaluation()),
        ("sweep", "sweep.json", report_data.sweep()),
    ):
        monkeypatch.setitem(PLACES, step, StepPlace(step, "", f"f3prune {step} {{run}}"))
        recipe = Manifest(step, {"pruned": directory.require("pruned").digest}, {}, {})

        def make(scratch: Path, file: str = file, content: object = content) -> None:
            (scratch / file).write_text(json.dumps(content))

        directory.perform(recipe, make, files=(file,))
    page, made = report(directory)
    assert made
    text = page.read_text()
    assert 'id="quality"' in text
    assert 'id="sweep"' in text
    assert report(directory)[1] is False
    prune(directory, PruneConfig(0.0, score="aas"))
    text = report(directory)[0].read_text()
    assert 'id="quality"' not in text
    assert 'id="sweep"' not in text


def test_the_report_is_json_with_provenance(finished: tuple[Path, Outcome]) -> None:
    data = json.loads((finished[0] / "report.json").read_text())
    assert data["parameters"]["before"] >= data["parameters"]["after"][0]
    assert {"denoiser (sha256)", "masks (sha256)", "settings", "prompts", "engine", "versions"} <= set(
        data["provenance"]
    )
    assert data["ceiling"]["allow"] == data["ceiling"]["dense"] / data["ceiling"]["pruned"] > 1
    assert set(data["speed"]["seconds"]) == {"dense engine", "pruned engine", "dense PyTorch", "pruned PyTorch"}
    rows = [sum(row) for row in data["frame_mass"]]
    assert rows == pytest.approx([1.0] * len(rows), abs=1e-4)


def test_a_second_run_does_nothing_again(tiny_pipeline: Path, run: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    outcome = start(tiny_pipeline, run)
    assert outcome.code == 0, outcome.err
    assert row(outcome, "up to date").split(", ") == list(STEPS)
    assert row(outcome, "done") == ""
    assert before == {
        file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file() and file.name != ".lock"
    }


def test_another_ratio_keeps_the_calibration(tiny_pipeline: Path, run: Path) -> None:
    aas = (run / "aas.safetensors").stat().st_mtime_ns
    assert f3prune("prune", run, "--alpha", 0).code == 0
    assert (run / "aas.safetensors").stat().st_mtime_ns == aas
    # The engine of the other masks is not used.
    outcome = f3prune("check", run)
    assert outcome.code == 2
    assert "made from another 'pruned'" in outcome.err
    assert f"f3prune export {run}" in outcome.err


@pytest.mark.parametrize(
    ("name", "command", "repair"),
    [
        ("aas.safetensors", ("prune", "--alpha", "0.5"), "f3prune calibrate"),
        ("calls.safetensors", ("check",), "f3prune calibrate"),
        ("pruned/model.safetensors", ("export",), "f3prune prune"),
        ("onnx/denoiser.onnx", ("build", "--backend", "tensorrt-rtx"), "f3prune export"),
        ("engine/denoiser.onnx", ("check",), "f3prune build"),
        ("engine/engine.json", ("generate", "--prompt", "x", "-o", "o.gif"), "f3prune build"),
    ],
)
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_tampered_files_are_refused_and_rebuilt(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Path,
    name: str,
    command: tuple[str, ...],
    repair: str,
    how: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = run / name
    content = path.read_bytes()
    if how == "remove":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    outcome = f3prune(command[0], run, *command[1:])
    assert outcome.code == 2, outcome.err
    assert outcome.err.count("\n") == 1
    assert str(path) in outcome.err
    assert repair in outcome.err
    assert not (tmp_path / "o.gif").exists()


def test_a_run_rebuilds_what_was_tampered_with(tiny_pipeline: Path, run: Path) -> None:
    graph = run / "onnx" / "denoiser.onnx"
    good = graph.read_bytes()
    graph.write_bytes(good[:-1])
    (run / "video.mp4").write_bytes(b"")
    outcome = start(tiny_pipeline, run)
    assert outcome.code == 0, outcome.err
    assert graph.read_bytes() == good
    assert (run / "video.mp4").stat().st_size > 0
    done = [name for name in STEPS if f"{name} " in row(outcome, "done")]
    assert done == ["export", "generate"]


def test_a_changed_model_is_noticed(tiny_pipeline: Path, run: Path, tmp_path: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    model = tmp_path / "model"
    shutil.copytree(tiny_pipeline, model)
    entry = manifest["steps"]["calibrate"]
    entry["facts"]["model"] = str(model)
    entry[SEAL] = seal(entry)
    (run / "manifest.json").write_text(json.dumps(manifest))
    config = model / "transformer" / "config.json"
    config.write_text(config.read_text() + "\n")
    outcome = f3prune("prune", run, "--alpha", 0.5)
    assert outcome.code == 2
    assert "changed since it was calibrated" in outcome.err
    shutil.rmtree(model)
    outcome = f3prune("prune", run, "--alpha", 0.5)
    assert outcome.code == 2
    assert str(model) in outcome.err


@pytest.mark.parametrize(
    ("fact", "value"), [("seed", 7), ("steps", 3), ("guidance", 9.0), ("model", "zoo:digits"), ("random_weights", True)]
)
def test_an_edited_fact_is_noticed(run: Path, tmp_path: Path, fact: str, value: object) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    facts = manifest["steps"]["calibrate"]["facts"]
    (facts["settings"] if fact in facts["settings"] else facts)[fact] = value
    (run / "manifest.json").write_text(json.dumps(manifest))
    outcome = f3prune("generate", run, "--prompt", "x", "-o", tmp_path / "o.mp4")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    assert "no valid entry for 'calibrate'" in outcome.err
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("export",), "masks.json"),
        (("build",), "masks.json"),
        (("generate", "--prompt", "x", "-o", "o.mp4"), "pruned/config.json"),
        (("generate", "--prompt", "x", "-o", "o.mp4"), "masks.json"),
        (("report",), "onnx/denoiser.onnx"),
        (("report",), "dense/onnx/denoiser.onnx"),
    ],
)
def test_nothing_that_steers_a_result_is_used_unverified(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for made in {"export": ("onnx",), "build": ("engine",)}.get(command[0], ()):
        shutil.rmtree(run / made)
    (run / "report.html").unlink()
    # JSON of the same meaning and a graph of the same meaning: only the hash tells.
    with (run / file).open("ab") as stream:
        stream.write(b" " if file.endswith(".json") else b"\x12\x00")
    outcome = f3prune(command[0], run, *command[1:])
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    assert f"{run / file} was altered" in outcome.err


@pytest.mark.parametrize(
    "part", ["vae/config.json", "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json"]
)
def test_a_part_of_the_model_that_was_swapped_is_noticed(
    tiny_pipeline: Path, run: Path, tmp_path: Path, part: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_pipeline, model)
    manifest = json.loads((run / "manifest.json").read_text())
    entry = manifest["steps"]["calibrate"]
    entry["facts"]["model"] = str(model)
    entry[SEAL] = seal(entry)
    (run / "manifest.json").write_text(json.dumps(manifest))
    with (model / part).open("ab") as stream:
        stream.write(b" ")
    outcome = f3prune("generate", run, "--prompt", "x", "-o", tmp_path / "o.mp4")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    assert "another text encoder, autoencoder, scheduler or tokenizer" in outcome.err


def test_unknown_sites_are_named(run: Path) -> None:
    outcome = f3prune("prune", run, "--alpha", 0.5, "--protect", "blocks.*")
    assert outcome.code == 2
    assert "blocks.*" in outcome.err
    assert "transformer_blocks.0.attn1" in outcome.err


def test_one_run_at_a_time(run: Path) -> None:
    with RunDirectory(run).lock():
        outcome = f3prune("report", run)
    assert outcome.code == 2
    assert f"in use by process {os.getpid()}" in outcome.err


@pytest.mark.parametrize("name", ["o.mp4", "o.gif", "f-%02d.png", "frames"])
def test_generate_writes_what_was_asked_for(run: Path, tmp_path: Path, name: str) -> None:
    outcome = f3prune("generate", run, "--prompt", "a 3 moving left", "-o", tmp_path / name, "--seed", 5)
    assert outcome.code == 0, outcome.err
    assert "9 frames of 48 x 32 pixels" in outcome.out
    files = [
        file for file in tmp_path.rglob("*") if file.suffix in {".mp4", ".gif", ".png"} and run not in file.parents
    ]
    assert len(files) == (9 if name in {"f-%02d.png", "frames"} else 1)


def test_generating_writes_nothing_to_the_run_and_others_may_too(run: Path, tmp_path: Path) -> None:
    (run / ".lock").unlink()
    before = {file: file.stat().st_mtime_ns for file in [run, *run.rglob("*")]}
    assert f3prune("generate", run, "--prompt", "a 3", "-o", tmp_path / "a.png").code == 0
    assert {file: file.stat().st_mtime_ns for file in [run, *run.rglob("*")]} == before
    directory = RunDirectory(run)
    with directory.lock():
        writing = f3prune("generate", run, "--prompt", "a 3", "-o", tmp_path / "b.png")
    assert (writing.code, writing.err) == (2, f"f3prune: run directory {run} is being written: wait for it\n")
    with directory.reading():
        assert f3prune("generate", run, "--prompt", "a 3", "-o", tmp_path / "c.png").code == 0
        assert "or by one that reads it" in f3prune("prune", run, "--alpha", 0.5).err
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_generate_takes_a_negative_prompt(run: Path, tmp_path: Path) -> None:
    for name, given in (
        ("a.png", []),
        ("b.png", ["--negative-prompt", "a 5 moving up"]),
        ("c.png", ["--negative-prompt", ""]),
    ):
        assert f3prune("generate", run, "--prompt", "a 3", "-o", tmp_path / name, *given).code == 0
    one, other, empty = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert one == empty != other


def test_a_model_that_was_moved_is_found(tiny_pipeline: Path, run: Path, tmp_path: Path) -> None:
    words = ("generate", run, "--prompt", "a 3", "-o")
    assert f3prune(*words, tmp_path / "a.png").code == 0
    moved = tiny_pipeline.rename(tiny_pipeline.with_name("moved"))
    try:
        gone = f3prune(*words, tmp_path / "b.png")
        assert gone.code == 2
        assert "does not exist" in gone.err
        assert "if it was moved, give --model DIR" in gone.err
        assert f3prune(*words, tmp_path / "b.png", "--model", moved).code == 0
        for command in (("report",), ("check", "--no-videos"), ("export",), ("prune", "--alpha", 0.5)):
            lost = f3prune(command[0], run, *command[1:])
            assert (lost.code, "if it was moved, give --model DIR" in lost.err) == (2, True), lost.err
            found = f3prune(command[0], run, *command[1:], "--model", moved)
            assert found.code == 0, found.err
        other = shutil.copytree(moved, tmp_path / "other")
        (other / "scheduler" / "scheduler_config.json").write_text("{}")
        wrong = f3prune(*words, tmp_path / "c.png", "--model", other)
        assert wrong.code == 2
        assert f"--model {other} is not the one that was calibrated (sha256 of its other parts" in wrong.err
    finally:
        moved.rename(tiny_pipeline)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_generate_insists_on_the_backend(run: Path, tmp_path: Path) -> None:
    outcome = f3prune("generate", run, "--prompt", "x", "-o", tmp_path / "o.mp4", "--backend", "tensorrt-rtx")
    assert outcome.code == 2
    assert "was built for onnxruntime" in outcome.err


def test_check_writes_json_and_fails_when_a_bound_is_missed(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    assert f3prune("check", run, "--json", file).code == 0
    found = json.loads(file.read_text())
    assert found["passed"]
    # The engine's own video of two steps is the pruned model's but for rounding.
    assert found["export"]["psnr"] == "inf" or float(found["export"]["psnr"]) > 60
    assert f3prune("check", run, "--no-videos", "--json", file).code == 0
    assert json.loads(file.read_text())["export"]["psnr"] is None
    outcome = f3prune("check", run, "--reference", "dense", "--max-rel-l2", "1e-9", "--json", file)
    assert outcome.code == 1
    assert outcome.err.startswith("f3prune: check failed: pruning: ")
    assert outcome.err.count("\n") == 1
    assert not json.loads(file.read_text())["passed"]


def test_bench_measures_again_and_writes_json(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    before = (run / "bench.json").read_text()
    outcome = f3prune("bench", run, "--rounds", 3, "--json", file)
    assert outcome.code == 0, outcome.err
    assert "pruned engine" in outcome.out
    assert (run / "bench.json").read_text() != before
    assert min(row["runs"] for row in json.loads(file.read_text())["seconds"].values()) == 3


def test_an_interrupt_leaves_nothing_half_written(tiny_pipeline: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # A shell's background jobs ignore SIGINT and pass that on: give the command what a terminal would.
    code = (
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from f3prune.cli.main import main\nmain(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "calibrate", str(tiny_pipeline), "-o", str(run), "--steps", "900"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(run.glob(".tmp-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("f3prune: interrupted")
    assert not run.exists()


@pytest.mark.slow(reason="exports and builds two stages")
def test_stages_and_heads(tiny_pipeline: Path, run: Path, tmp_path: Path) -> None:
    outcome = f3prune("prune", run, "--alpha", 0.5, "--granularity", "head", "--stages", 2)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("4 of 8 heads pruned") == 2
    for command in ("export", "build"):
        outcome = f3prune(command, run)
        assert outcome.code == 0, outcome.err
    checked = f3prune("check", run, "--reference", "dense")
    assert checked.code == 0, checked.err
    assert "each on its own" in checked.out
    assert "frames that answer" in checked.out
    assert isinstance(load_pruned(run / "pruned"), StagedDenoiser)
    assert f3prune("generate", run, "--prompt", "x", "-o", tmp_path / "o.gif").code == 0
    assert f3prune("report", run).code == 0
    assert "Stage 1" in (run / "report.html").read_text()


def test_a_killed_step_leaves_the_run_as_it_was(tiny_pipeline: Path, run: Path) -> None:
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    code = (
        "import os, sys\nimport f3prune.steps.prune as step\n"
        "def die(*a, **k): os._exit(9)\n"
        "step.calibration.save_pruned = die\n"
        "from f3prune.cli.main import main\nmain(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, "prune", str(run), "--alpha", "1"], check=False)
    assert done.returncode == 9
    outcome = f3prune("export", run)
    assert (outcome.code, "f3prune prune" in outcome.err) == (2, True)
    outcome = start(tiny_pipeline, run)
    assert outcome.code == 0, outcome.err
    after = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    assert set(after) == set(before)
    names = ("aas.safetensors", "masks.json", "pruned/model.safetensors", "onnx/denoiser.onnx")
    assert all(after[run / name] == before[run / name] for name in names)


def test_contestants_that_do_not_fit_are_timed_one_after_another(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "FREE_SHARE", 0.0)
    result, _ = speed.bench(RunDirectory.open(run), speed.BenchOptions(rounds=3, warm_up=1))
    assert "one contestant after the other" in result["what"]
    assert {name: row["runs"] for name, row in result["seconds"].items()} == dict.fromkeys(speed._OPENERS, 3)
