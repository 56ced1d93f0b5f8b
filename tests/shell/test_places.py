"""Only regular files and f3prune's own folders are replaced, and no link leads out of a run."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import f3prune

from f3prune.cli.runs import write_text, written
from f3prune.core.atomic_files import atomic_directory, atomic_write
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.manifest import Manifest
from f3prune.core.places import open_in, open_regular, refuse_to_replace
from f3prune.core.run_directory import LOCK, MANIFEST, RunDirectory
from f3prune.pipelines.video import check_output, write_video

FRAMES = np.zeros((2, 8, 8, 3), np.float32)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": _socket,
    "a link": lambda path: path.symlink_to(path.parent / "linked"),
}


def state(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_mode, found.st_ino


@pytest.fixture(params=list(KINDS))
def other_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Makes something that is neither a regular file nor a directory."""

    def make(name: str) -> Path:
        (tmp_path / "linked").write_text("kept")
        KINDS[request.param](tmp_path / name)
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "frames", "f-%d.png"])
def test_a_video_replaces_nothing_of_another_kind(other_kind: Callable[[str], Path], name: str) -> None:
    place = other_kind(name.replace("%d", "1"))
    before = state(place)
    with pytest.raises(InputError, match=r"give (another name|\.mp4)"):
        write_video(FRAMES, place.with_name(name))
    assert state(place) == before
    assert {entry.name for entry in place.parent.iterdir()} == {place.name, "linked"}
    assert (place.parent / "linked").read_text() == "kept"


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1"])
def test_devices_stay_what_they_are(name: str) -> None:
    before = state(Path(name))
    with pytest.raises(InputError, match=r"give (another name|\.mp4)"):
        check_output(Path(name))
    for arguments in (
        ("generate", "r", "--prompt", "x", "-o", name),
        ("check", "r", "--json", name),
        ("bench", "r", "--plot", name),
        ("plan", "zoo:digits", "--json", name),
        ("evaluate", "r", "--json", name),
        ("calibrate", "zoo:digits", "-o", name),
    ):
        done = f3prune(*arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert state(Path(name)) == before


def test_files_and_folders_of_another_kind_are_not_written(other_kind: Callable[[str], Path]) -> None:
    place = other_kind("x")
    before = state(place)
    for write in (atomic_write, atomic_directory):
        with pytest.raises(InputError, match="give another name"), write(place):
            pass
    with pytest.raises(InputError):
        write_text(place, "text")
    assert state(place) == before


def test_what_appears_meanwhile_is_not_replaced_either(tmp_path: Path) -> None:
    for write in (atomic_write, atomic_directory):
        place = tmp_path / write.__name__

        def late(write: Callable = write, place: Path = place) -> None:
            with write(place) as temporary:
                if write is atomic_write:
                    temporary.write_text("x")
                os.mkfifo(place)

        with pytest.raises(InputError, match="named pipe"):
            late()
        assert place.is_fifo()


def test_somebody_elses_folder_is_not_replaced(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    (run.path / "pruned").mkdir()
    (run.path / "pruned" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="did not write"):
        run.perform(Manifest("pruned", {}, {}, {}), lambda scratch: (scratch / "x").write_text("") and {})
    assert (run.path / "pruned" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("folder", ["http:", "pipe:", "concat:x|y", "data:", "-y", "%d"])
def test_ffmpeg_reads_no_name_as_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    seen: list[str] = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: (seen.append(command[-1]), run(command, **options))[1]
    )
    monkeypatch.chdir(tmp_path)
    (file,) = write_video(FRAMES, Path(folder, "a.mp4"))
    write_video(FRAMES, Path(folder, "a.gif"))
    assert file.stat().st_size > 100
    assert seen[0].startswith("file:/")
    assert {path.name for path in (tmp_path / folder).iterdir()} == {"a.mp4", "a.gif"}


@pytest.mark.parametrize("folder", ["http:", "pipe:", "concat:x|y"])
def test_videos_are_kept_and_read_by_files_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    pytest.importorskip("av")
    from f3prune.quality.datasets._decode import _count
    from f3prune.quality.video_store import VideoStore

    monkeypatch.chdir(tmp_path)
    store = VideoStore(Path(folder), 1, {})
    store.add(0, FRAMES)
    assert store[0].shape == FRAMES.shape
    assert _count(Path(folder, "00000.mkv")) == len(FRAMES)


# -- links in a run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory.create(tmp_path / "run")
    run.start()
    return run


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    (folder / ".tmp-precious").mkdir(parents=True)
    (folder / "file").write_text("kept")
    return folder


@pytest.mark.parametrize("how", ["link", "hard link", "pipe"])
def test_the_lock_writes_to_nothing_else(run: RunDirectory, elsewhere: Path, how: str) -> None:
    if how == "link":
        (run.path / LOCK).symlink_to(elsewhere / "file")
    elif how == "pipe":
        os.mkfifo(run.path / LOCK)
    else:
        os.link(elsewhere / "file", run.path / LOCK)
    with pytest.raises(InputError), run.lock():
        pass
    assert (elsewhere / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["dense", "scores", "engine", "dense/onnx", "refit/x", "videos"])
def test_nothing_is_cleaned_or_written_behind_a_link(run: RunDirectory, elsewhere: Path, name: str) -> None:
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link"), run.lock():
        pass
    assert (elsewhere / ".tmp-precious").is_dir()


def test_a_run_may_itself_be_a_link(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(run.path)
    with RunDirectory.open(tmp_path / "latest").lock():
        pass


def test_files_behind_links_are_no_artifacts(run: RunDirectory, tmp_path: Path) -> None:
    made, _ = run.perform(Manifest("pruned", {}, {}, {}), lambda scratch: (scratch / "x").write_text("1") and {})
    assert run.require("pruned") == made
    (run.path / "pruned").rename(tmp_path / "moved")
    (run.path / "pruned").symlink_to(tmp_path / "moved")
    assert run.manifest("pruned") is None
    (run.path / "pruned").unlink()
    (tmp_path / "moved").rename(run.path / "pruned")
    (run.path / "pruned" / "x").rename(tmp_path / "x")
    (run.path / "pruned" / "x").symlink_to(tmp_path / "x")
    with pytest.raises(ArtifactError, match="is a link"):
        run.require("pruned")


@pytest.mark.parametrize("name", ["x", MANIFEST])
def test_a_pipe_in_an_artifacts_place_is_not_waited_for(run: RunDirectory, name: str) -> None:
    run.perform(Manifest("pruned", {}, {}, {}), lambda scratch: (scratch / "x").write_text("1") and {})
    (run.path / "pruned" / name).unlink()
    os.mkfifo(run.path / "pruned" / name)
    with pytest.raises(ArtifactError, match=r"named pipe|no valid entry"):
        run.require("pruned")


def test_nothing_is_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "f").write_text("x")
    (tmp_path / "l").symlink_to(tmp_path / "a")
    os.close(open_in(tmp_path / "l", "b/f"))
    os.close(open_regular(tmp_path / "l" / "b" / "f"))
    with pytest.raises(OSError, match=r".*"):
        open_in(tmp_path, "l/b/f")
    with pytest.raises(OSError, match=r"is a directory|Is a directory"):
        open_in(tmp_path, "a")
    refuse_to_replace(tmp_path / "absent")


def test_who_loses_the_race_for_a_new_run_leaves_it_to_the_winner(tmp_path: Path) -> None:
    """The winner comes between the loser's look and its lock."""
    place = tmp_path / "new" / "run"
    create = RunDirectory.create.__func__
    winner = RunDirectory(place)

    with pytest.MonkeyPatch.context() as patch:
        held = None

        def late(path: Path | str) -> RunDirectory:
            nonlocal held
            found = create(RunDirectory, path)
            held = winner.lock()
            held.__enter__()
            return found

        patch.setattr("f3prune.cli.runs.RunDirectory.create", late)
        with pytest.raises(InputError, match="in use by process"), written(place):
            pass
        assert held is not None
        assert (place / LOCK).exists()
        held.__exit__(None, None, None)


def test_a_failed_new_run_is_removed_by_its_own_process(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing"), written(tmp_path / "a" / "b"):
        raise InputError("nothing came of it")
    assert not (tmp_path / "a").exists()


def test_a_lock_of_a_removed_run_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(tmp_path / "run")
    opened = RunDirectory._open_lock

    def removed_meanwhile(self: RunDirectory) -> int:
        descriptor = opened(self)
        run.remove_if_empty()
        return descriptor

    monkeypatch.setattr(RunDirectory, "_open_lock", removed_meanwhile)
    with pytest.raises(InputError, match="just removed"), run.lock():
        pass
