"""Closed streams, narrow encodings, a deleted working directory, odd files: one line with the next step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import f3prune

from f3prune.calibration import Masks
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import parse_json, read_json
from f3prune.core.run_directory import MANIFEST, RunDirectory
from f3prune.core.weights import read_header

ROOT = Path(__file__).parents[2]
DEEP = "[" * 100_000
COMMAND = f"{sys.executable} -m f3prune"


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command line as a shell runs it, in the folder."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(line, shell=True, cwd=folder, env=variables, capture_output=True, check=False)


def test_closed_standard_output_is_one_line(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} families >&-", tmp_path)
    assert done.returncode == 2
    assert done.stderr == b"f3prune: standard output is closed: send it to a file, or to /dev/null\n"


def test_other_closed_streams_do_no_harm(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} families <&- 2>&-", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"CogVideoX" in done.stdout
    assert done.stdout.isascii()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} families > /dev/full", tmp_path)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr
    assert b"make room" in done.stderr


def test_a_deleted_working_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = shell(f"rmdir {tmp_path / 'gone'}; {COMMAND} prune r --alpha 0.5", tmp_path / "gone")
    assert done.returncode == 2
    assert done.stderr == b"f3prune: the working directory does not exist any more: change to one that does\n"


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "NaN", "[Infinity]", '{"a": -Infinity}', "", b"\xff"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"deep|no JSON|Expecting|decode"):
        parse_json(text)


@pytest.mark.parametrize("content", [DEEP, "NaN", '{"_class_name": NaN}'])
@pytest.mark.parametrize("name", ["m/model_index.json", "m/config.json", "p.jsonl", "r/manifest.json"])
def test_odd_json_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    if name.startswith("r/"):
        done = f3prune("prune", "r", "--alpha", "0.5")
    else:
        model = "zoo:digits" if name == "p.jsonl" else "m"
        done = f3prune("calibrate", model, "-o", "new", *(("--prompts", name) if name == "p.jsonl" else ()))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert name in done.err
    assert not (tmp_path / "new").exists()


def test_odd_json_in_artifacts_is_an_artifact_error(tmp_path: Path) -> None:
    for text in (DEEP, '{"version": NaN}'):
        with pytest.raises(ArtifactError, match=r"masks\.json is not readable"):
            Masks.from_json(text)
    header = b'{"a":' * 100_000
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(Exception, match="header is not one of safetensors"):
        read_header(tmp_path / "w.safetensors")


def test_no_pipe_is_waited_for(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "r")
    for name in ("config.json", "masks.json", f"r/{MANIFEST}"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="named pipe"):
        read_json(tmp_path / "config.json")
    with pytest.raises(ArtifactError, match="cannot read"):
        Masks.load(tmp_path / "masks.json")
    assert run.manifest("calibrate") is None


def test_a_table_beside_the_parts_counts(tmp_path: Path) -> None:
    """CogVideo's table of clusters and the inverted latents of a tuned model steer results like the parts do."""
    from f3prune.pipelines.sources import resolve

    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "w.safetensors").write_bytes(b"weights")
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "CogVideo"}')
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "CogVideoPipeline"}))
    found = {resolve(str(tmp_path)).pipeline_digest()}
    for name in ("cluster_labels.json", "inverted.safetensors"):
        (tmp_path / name).write_text("[1]")
        found.add(resolve(str(tmp_path)).pipeline_digest())
    assert len(found) == 3
