"""Artifacts appear whole or not at all, and one that was cut short, altered or made from other inputs is never used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.core import atomic_files
from f3prune.core.atomic_files import atomic_directory, atomic_write, canonical_json, sha256_file, sha256_text
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.manifest import Manifest
from f3prune.core.run_directory import MANIFEST, RunDirectory


def recipe(step: str = "masks", **inputs: str) -> Manifest:
    return Manifest(step, inputs, {"alpha": 0.5}, {"f3prune": "1"})


def write(text: bytes, name: str = "masks.json"):
    def make(scratch: Path) -> dict[str, int]:
        (scratch / name).write_bytes(text)
        return {"bytes": len(text)}

    return make


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_atomic_write_leaves_the_old_file_after_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_atomic_directory_replaces_a_directory_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "d"
    for content in ("one", "two"):
        with atomic_directory(target) as temporary:
            (temporary / content).write_text(content)
    assert names(target) == {"two"}

    def interrupted() -> None:
        with atomic_directory(target) as temporary:
            (temporary / "three").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(target) == {"two"}
    assert names(tmp_path) == {"d"}


def test_a_matching_step_is_not_run_again(run: RunDirectory) -> None:
    first, made = run.perform(recipe(aas="1"), write(b"x"))
    assert made
    assert first.facts == {"bytes": 1}
    second, made = run.perform(recipe(aas="1"), write(b"never"))
    assert not made
    assert second == first


@pytest.mark.parametrize(
    "changed",
    [
        recipe(aas="2"),
        recipe(aas="1", more="1"),
        replace(recipe(aas="1"), options={"alpha": 0.25}),
        replace(recipe(aas="1"), versions={"f3prune": "2"}),
    ],
)
def test_other_inputs_options_or_versions_rebuild(run: RunDirectory, changed: Manifest) -> None:
    run.perform(recipe(aas="1"), write(b"x"))
    _, made = run.perform(changed, write(b"y"))
    assert made
    assert (run.path / "masks.json").read_bytes() == b"y"


def test_a_failed_step_leaves_what_was_there(run: RunDirectory) -> None:
    run.perform(recipe(), write(b"x"))

    def fail(scratch: Path) -> None:
        (scratch / "masks.json").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.perform(replace(recipe(), options={}), fail)
    assert (run.path / "masks.json").read_bytes() == b"x"
    assert run.require("masks").files
    assert names(run.path) == {"masks.json", MANIFEST}


def test_steps_that_share_a_directory_keep_each_others_entries(run: RunDirectory) -> None:
    run.perform(recipe("calibrate"), write(b"a", "aas.safetensors"))
    run.perform(recipe("masks"), write(b"b"))
    assert run.require("calibrate").files.keys() == {"aas.safetensors"}
    assert run.require("masks").files.keys() == {"masks.json"}


def test_a_rebuilt_step_makes_later_ones_stale(run: RunDirectory) -> None:
    masks, _ = run.perform(recipe("masks"), write(b"a"))
    pruned = recipe("pruned", masks=masks.digest)
    run.perform(pruned, write(b"weights", "model.safetensors"))
    run.require("pruned")
    run.perform(replace(recipe("masks"), options={}), write(b"b"))
    with pytest.raises(ArtifactError, match=r"made from another 'masks'.*`prune\(run="):
        run.require("pruned")


def test_a_rebuilt_step_with_the_same_bytes_changes_nothing_downstream(run: RunDirectory) -> None:
    masks, _ = run.perform(recipe("masks"), write(b"a"))
    run.perform(recipe("pruned", masks=masks.digest), write(b"weights", "model.safetensors"))
    run.perform(replace(recipe("masks"), versions={}), write(b"a"))
    run.require("pruned")


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=400), data=st.data())
def test_any_flipped_bit_or_cut_is_detected(tmp_path_factory: pytest.TempPathFactory, content: bytes, data) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("run"))
    entry, _ = run.perform(recipe("pruned"), write(content, "model.safetensors"))
    path = run.directory("pruned") / "model.safetensors"
    if data.draw(st.booleans(), label="cut"):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), label="length")])
    else:
        at = data.draw(st.integers(0, len(content) - 1), label="byte")
        bit = 1 << data.draw(st.integers(0, 7), label="bit")
        path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
    with pytest.raises(ArtifactError, match=r"altered or cut short \(sha256 .*`prune\(run="):
        run.require("pruned")
    assert run.up_to_date(recipe("pruned")) is None
    again, made = run.perform(recipe("pruned"), write(content, "model.safetensors"))
    assert made
    assert again == entry


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_manifest_is_never_trusted(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("run"))
    run.perform(recipe("pruned"), write(b"weights", "model.safetensors"))
    path = run.directory("pruned") / MANIFEST
    text = path.read_bytes()
    path.write_bytes(text[: data.draw(st.integers(0, len(text) - 3))])
    with pytest.raises(ArtifactError, match=r"has no valid entry for 'pruned'"):
        run.require("pruned")
    _, made = run.perform(recipe("pruned"), write(b"weights", "model.safetensors"))
    assert made


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"step": "masks", "inputs": {}, "options": {}, "versions": {}, "files": {}, "facts": {}},
        {"step": "masks", "inputs": {}, "options": {}, "versions": {}, "files": {"../x": "0"}, "facts": {}},
        {"step": "masks", "inputs": {}, "options": {}, "versions": {}, "files": {"/etc/passwd": "0"}, "facts": {}},
        {"step": "masks", "inputs": {"a": 1}, "options": {}, "versions": {}, "files": {"x": "0"}, "facts": {}},
        {"step": "other", "inputs": {}, "options": {}, "versions": {}, "files": {"x": "0"}, "facts": {}},
    ],
)
def test_a_malformed_entry_is_never_trusted(run: RunDirectory, entry: object) -> None:
    (run.path / MANIFEST).write_text(json.dumps({"format": 1, "steps": {"masks": entry}}))
    assert run.manifest("masks") is None


@pytest.mark.parametrize("part", ["inputs", "options", "versions", "files", "facts"])
def test_an_edited_entry_is_never_trusted(run: RunDirectory, part: str) -> None:
    made, _ = run.perform(recipe(aas="1"), write(b"x"))
    text = json.loads((run.path / MANIFEST).read_text())
    table = text["steps"]["masks"][part]
    table[min(table)] = "edited"
    (run.path / MANIFEST).write_text(json.dumps(text))
    assert run.manifest("masks") is None
    assert run.perform(recipe(aas="1"), write(b"x")) == (made, True)


def test_what_is_parsed_is_what_was_hashed(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.perform(recipe(), write(b"good"))
    opened: list[str] = []
    reopen = RunDirectory._opened
    monkeypatch.setattr(RunDirectory, "_opened", lambda *names: (opened.append(names[-1]), reopen(*names))[1])
    assert run.content("masks", "masks.json") == b"good"
    assert opened.count("masks.json") == 1
    (run.path / "masks.json").write_bytes(b"Good")
    with pytest.raises(ArtifactError, match="was altered"):
        run.content("masks", "masks.json")


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 2, "steps": {}}', '{"format": 1, "steps": []}', "\0", ""])
def test_a_foreign_manifest_is_never_trusted(run: RunDirectory, text: str) -> None:
    (run.path / MANIFEST).write_text(text)
    assert run.manifest("masks") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    options=st.dictionaries(st.text(max_size=8), json_values, max_size=4),
    inputs=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)
def test_manifests_round_trip(tmp_path_factory: pytest.TempPathFactory, options, inputs) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("run"))
    wanted = Manifest("masks", inputs, options, {"f3prune": "1"})
    made, _ = run.perform(wanted, write(b"x"))
    read = run.manifest("masks")
    assert read is not None
    assert canonical_json(read.options) == canonical_json(made.options)
    assert read.same_recipe(wanted)


def test_a_run_is_locked_while_another_process_writes(run: RunDirectory) -> None:
    code = (
        "import sys; from f3prune.core.run_directory import RunDirectory\n"
        "with RunDirectory(sys.argv[1]).lock():\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"in use by process {other.pid}"), run.lock():
            pass
        other.kill()
        other.wait()
    with run.lock():  # the killed process's lock went with it
        pass


def test_the_lock_sweeps_what_a_killed_process_left(run: RunDirectory) -> None:
    for parent in (run.path, run.path / "dense"):
        (parent / ".tmp-abc").mkdir(parents=True)
        (parent / ".tmp-abc" / "half.onnx").write_bytes(b"x")
    with run.lock():
        assert not (run.path / ".tmp-abc").exists()
        assert not (run.path / "dense" / ".tmp-abc").exists()


def test_a_directory_with_other_things_in_it_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"holiday\.jpg"):
        RunDirectory.create(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        RunDirectory.create(tmp_path / "holiday.jpg")
    with pytest.raises(InputError, match="does not exist"):
        RunDirectory.open(tmp_path / "absent")


def test_hash_of_a_known_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes were read to hash them."""
    found: list[str] = []
    read = atomic_files._read_sha256
    monkeypatch.setattr(
        atomic_files, "_read_sha256", lambda stream: (found.append(Path(stream.name).name), read(stream))[1]
    )
    return found


def test_a_file_that_stays_as_it_is_is_read_once(run: RunDirectory, reads: list[str]) -> None:
    made, _ = run.perform(recipe("onnx"), write(b"graph", "denoiser.onnx"))
    built, _ = run.perform(recipe("engine", onnx=made.digest), write(b"engine", "model.onnx"))
    for _ in range(3):
        assert run.require("onnx") == made
        assert run.require("engine") == built
        assert run.perform(recipe("onnx"), write(b"never", "denoiser.onnx")) == (made, False)
    assert reads == ["denoiser.onnx", "model.onnx"]


@pytest.mark.parametrize("how", ["in place", "in place, times put back", "another file"])
def test_an_altered_file_of_the_same_size_is_noticed(run: RunDirectory, reads: list[str], how: str) -> None:
    run.perform(recipe("onnx"), write(b"graph", "denoiser.onnx"))
    path = run.directory("onnx") / "denoiser.onnx"
    run.require("onnx")
    before = path.stat()
    if how == "another file":
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"Graph")
    else:
        path.write_bytes(b"Graph")
    if how != "in place":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ArtifactError, match="was altered"):
        run.require("onnx")
    assert len(reads) == 2


@pytest.mark.parametrize(("tick", "odd"), [(10_000_000, 1), (1_000_000_000, 0)])
def test_writes_within_one_tick_of_the_clock_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: int, odd: int
) -> None:
    """They leave the same time on the file: of Linux's clock, or of a file system that keeps whole seconds."""
    exact = atomic_files._state

    def ticking(stream: BinaryIO) -> tuple[int, ...]:
        *where, modified, changed = exact(stream)
        return *where, modified // tick * tick + odd, changed // tick * tick + odd

    monkeypatch.setattr(atomic_files, "_state", ticking)
    path = tmp_path / "f"
    for number in range(20):
        text = f"{number:02}"
        path.write_text(text)
        assert sha256_file(path) == sha256_text(text)


def test_no_heavy_import() -> None:
    modules = "f3prune.core.run_directory, f3prune.pipelines.sources, f3prune.pipelines.prompts"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
