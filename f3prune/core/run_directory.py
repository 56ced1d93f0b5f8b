"""A run directory: files that appear whole or not at all, and a manifest that says what made them.

    run/
      manifest.json           calibrate: aas.safetensors, calls.safetensors · masks: masks.json
                              generate: video.mp4, video-dense.mp4, frames.png
                              report: report.json, report.html
      pruned/manifest.json    onnx/manifest.json    engine/manifest.json    dense/onnx/manifest.json …

Every directory carries one ``manifest.json`` with an entry for each step that wrote into it: SHA-256 of the step's
inputs and of its files, its options, package versions. A step whose entry matches is not run again. A step that owns a
directory replaces it as a whole, manifest included. A file is hashed before anything parses it.

This module imports no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from f3prune.core.atomic_files import (
    TEMPORARY,
    atomic_directory,
    atomic_write,
    fsync_directory,
    fsync_file,
    sha256_file,
    sha256_stream,
)
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import parse_json
from f3prune.core.manifest import Manifest
from f3prune.core.places import absolute, links_below, open_in, refuse_to_replace

MANIFEST = "manifest.json"
FORMAT = 1
LOCK = ".lock"


@dataclass(frozen=True)
class StepPlace:
    """Where a step's files live and which call makes them.

    ``directory`` is relative to the run ("" for the run itself); ``owns`` says that the directory belongs to this step
    alone and is replaced as a whole.
    """

    step: str
    directory: str
    command: str

    @property
    def owns(self) -> bool:
        """Whether the directory is the step's own."""
        return bool(self.directory)


PLACES: dict[str, StepPlace] = {
    place.step: place
    for place in (
        StepPlace("calibrate", "", "calibrate(model=MODEL, run={run!r})"),
        StepPlace("scores", "", "prune(run={run!r}, alpha=A)"),
        StepPlace("refit", "", "prune(run={run!r}, alpha=A, refit=True)"),
        StepPlace("masks", "", "prune(run={run!r}, alpha=A)"),
        StepPlace("pruned", "pruned", "prune(run={run!r}, alpha=A)"),
        StepPlace("onnx", "onnx", "export(run={run!r})"),
        StepPlace("engine", "engine", "build(run={run!r})"),
        StepPlace("dense-onnx", "dense/onnx", "export(run={run!r})"),
        StepPlace("dense-engine", "dense/engine", "build(run={run!r})"),
        StepPlace("reuse", "", "reuse(run={run!r})"),
        StepPlace("generate", "", "run(model=MODEL, run={run!r})"),
        StepPlace("bench", "", "bench(run={run!r})"),
        StepPlace("contenders", "", "bench(run={run!r}, contenders='all')"),
        StepPlace("evaluate", "", "evaluate(run={run!r})"),
        StepPlace("sweep", "", "sweep(run={run!r})"),
        StepPlace("check", "", "check(run={run!r})"),
        StepPlace("report", "", "report(run={run!r})"),
    )
}
"""Every step of a run, in order."""


class RunDirectory:
    """One run on disk.

    Attributes:
        path: the directory.
        model: where the run's MODEL is now, if it was moved since calibration; None where it was.
    """

    def __init__(self, path: Path | str, model: str | None = None) -> None:
        self.path = Path(path)
        self.model = model

    @classmethod
    def open(cls, path: Path | str, model: str | None = None) -> RunDirectory:
        """An existing run directory.

        Args:
            path: the directory.
            model: where its MODEL is now, if it was moved.

        Raises:
            InputError: ``path`` is not a directory.
        """
        run = cls(path, model)
        if not run.path.is_dir():
            what = "is not a directory" if run.path.exists() else "does not exist"
            raise InputError(f"run directory {run.path} {what}: start one with `{run.command('calibrate')}`")
        return run

    @classmethod
    def create(cls, path: Path | str, model: str | None = None) -> RunDirectory:
        """A run directory to write to; made if it does not exist.

        Args:
            path: the directory.
            model: where its MODEL is now, if it was moved.

        Raises:
            InputError: ``path`` is a file, cannot be made, or is a directory with other things in it.
        """
        run = cls(path, model)
        if run.path.exists():
            if not run.path.is_dir():
                raise InputError(f"run directory {run.path} is a file: give another one")
            foreign = [entry.name for entry in run.path.iterdir() if not entry.name.startswith(".")]
            if foreign and not (run.path / MANIFEST).exists():
                raise InputError(
                    f"{run.path} holds {min(foreign)!r} and is no run directory: give a new or an empty directory"
                )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"run directory {run.path} cannot be made ({error.strerror}): give a directory you can write to"
            ) from error
        return run

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing. The lock goes with the process that holds it, so it is never stale.

        Raises:
            InputError: another process holds it, the directory cannot be written, or there is a link in it.
        """
        descriptor = self._open_lock()
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise InputError(
                    f"run directory {self.path} is in use by process {holder}, or by one that reads it: "
                    f"wait, or give another directory"
                ) from error
            if not self._is_lock(descriptor):
                raise InputError(f"run directory {self.path} was just removed by another process: start again")
            for link in links_below(self.path):
                raise InputError(f"{link} is a link, and a run has none: put what it leads to in its place")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            self._sweep()
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        try:
            descriptor = open_in(self.path, LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise InputError(
                f"run directory {self.path} cannot be written ({LOCK}: {error.strerror}): check its permissions"
            ) from error
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise InputError(f"{self.path / LOCK} has another name elsewhere: remove it")
        return descriptor

    def _is_lock(self, descriptor: int) -> bool:
        """Whether the file that was locked still is the run's lock."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path / LOCK))
        except FileNotFoundError:
            return False

    def remove_if_empty(self) -> None:
        """Remove the directory if nothing but the lock is in it; only the holder of the lock may."""
        if {entry.name for entry in self.path.iterdir()} <= {LOCK}:
            (self.path / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep writers out, but not other readers; writes nothing, so the directory may be read-only.

        Raises:
            InputError: another process is writing to the run.
        """
        try:
            descriptor = open_in(self.path, LOCK, os.O_RDONLY)
        except OSError:
            # A copy without its lock, or one that may not even be opened: nobody writes there.
            yield
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"run directory {self.path} is being written: wait for it") from error
            yield
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what a killed process left; only the holder of the lock may."""
        for parent in {self.path, *(self.path / place.directory for place in PLACES.values())}:
            for folder in (parent, parent.parent):
                if folder == self.path or self.path in folder.parents:
                    for leftover in folder.glob(f"{TEMPORARY}*"):
                        shutil.rmtree(leftover, ignore_errors=True)

    # -- reading -----------------------------------------------------------------------------------------------------

    def directory(self, step: str) -> Path:
        """Where the step's files are."""
        return self.path / PLACES[step].directory

    def command(self, step: str) -> str:
        """The call that makes the step's files again; the command line shows it as a command."""
        return PLACES[step].command.format(run=str(self.path))

    def read(self, step: str, name: str) -> bytes:
        """A file beside the step's own.

        Raises:
            OSError: it cannot be read, or is a link or no regular file.
        """
        with self._opened(PLACES[step].directory, name) as stream:
            return stream.read()

    def _opened(self, directory: str, name: str) -> BinaryIO:
        """A file of the run. Everything in it is opened here: no link is followed, and nothing that blocks is."""
        relative = os.path.join(directory, name)
        return open(self.path / relative, "rb", opener=lambda _, flags: open_in(self.path, relative, flags))

    def _entries(self, step: str) -> dict[str, Any]:
        """The manifest file's raw entries; an unreadable one has none, so it is never trusted."""
        try:
            value = parse_json(self.read(step, MANIFEST))
        except (OSError, ValueError):
            return {}
        if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("steps"), dict):
            return {}
        return dict(value["steps"])

    def manifest(self, step: str) -> Manifest | None:
        """The step's entry, or None if it is absent or malformed. Does not look at the files."""
        try:
            found = Manifest.from_json(self._entries(step).get(step))
        except ValueError:
            return None
        return found if found.step == step else None

    def require(self, step: str) -> Manifest:
        """The step's entry, with every file hashed and the recorded inputs compared with the steps that made them.

        Raises:
            ArtifactError: absent, altered, cut short, or made from other inputs; names the command that makes it again.
        """
        found = self.require_current(step)
        self._verify_files(found)
        return found

    def require_current(self, step: str) -> Manifest:
        """Like ``require``, without hashing the files: for steps that lie further back and whose files are not read."""
        found = self._entry(step)
        self._check_inputs(found)
        return found

    def _entry(self, step: str) -> Manifest:
        found = self.manifest(step)
        if found is None:
            shown = self.directory(step) / MANIFEST
            raise ArtifactError(f"{shown} has no valid entry for {step!r}: make it with `{self.command(step)}`")
        return found

    def _check_inputs(self, found: Manifest) -> None:
        step = found.step
        for name, digest in found.inputs.items():
            if name in PLACES:
                upstream = self.manifest(name)
                if upstream is None or upstream.digest != digest:
                    now = upstream.digest[:12] if upstream else "absent"
                    raise ArtifactError(
                        f"{self.directory(step)} ({step}) was made from another {name!r} "
                        f"(sha256 {digest[:12]}, now {now}): make it again with `{self.command(step)}`"
                    )

    def content(self, step: str, name: str) -> bytes:
        """What a step's file holds: it is opened once, and what is hashed is what is returned.

        Raises:
            ArtifactError: the step has no valid entry, or the file is missing or was altered.
        """
        content = b""

        def read(stream: BinaryIO) -> str:
            nonlocal content
            content = stream.read()
            return hashlib.sha256(content).hexdigest()

        self._verify_file(self._entry(step), name, read)
        return content

    def verify_file(self, step: str, name: str) -> None:
        """Compare one file of a step with its hash, for what is read by its name right afterwards.

        Raises:
            ArtifactError: as ``content``.
        """
        self._verify_file(self._entry(step), name, sha256_stream)

    def _verify_files(self, manifest: Manifest) -> None:
        for name in manifest.files:
            self._verify_file(manifest, name, sha256_stream)

    def _verify_file(self, manifest: Manifest, name: str, digest: Callable[[BinaryIO], str]) -> None:
        place, expected = PLACES[manifest.step], manifest.files.get(name, "")
        path = self.path / place.directory / name
        try:
            with self._opened(place.directory, name) as stream:
                actual = digest(stream)
        except OSError as error:
            raise ArtifactError(
                f"{path} is missing or unreadable ({error.strerror}): make it again with `{self.command(place.step)}`"
            ) from error
        if actual != expected:
            raise ArtifactError(
                f"{path} was altered or cut short (sha256 {actual[:12]}, expected {expected[:12]}): "
                f"make it again with `{self.command(place.step)}`"
            )

    def up_to_date(self, recipe: Manifest) -> Manifest | None:
        """The entry on disk if it has the same recipe as ``recipe`` and every file is intact; None otherwise."""
        found = self.manifest(recipe.step)
        if found is None or not found.same_recipe(recipe):
            return None
        try:
            self._verify_files(found)
        except ArtifactError:
            return None
        return found

    # -- writing -----------------------------------------------------------------------------------------------------

    def perform(
        self,
        recipe: Manifest,
        make: Callable[[Path], Mapping[str, Any] | None],
        *,
        files: Sequence[str] = (),
    ) -> tuple[Manifest, bool]:
        """Make the step unless it is up to date; returns its entry and whether it was made now.

        ``make`` gets an empty directory and writes the step's files there (``files`` of it, or all there are); what it
        returns becomes the entry's ``facts``. Nothing reaches the run directory before ``make`` has returned.
        """
        found = self.up_to_date(recipe)
        if found is not None:
            return found, False
        target = absolute(self.directory(recipe.step))
        if PLACES[recipe.step].owns:
            refuse_to_replace(target, folder=True, own=MANIFEST)
            with atomic_directory(target) as scratch:
                facts = dict(make(scratch) or {})
                entry = _with_files(recipe, scratch, files, facts)
                _write_manifest(scratch / MANIFEST, {recipe.step: entry})
            return entry, True
        scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target))
        try:
            facts = dict(make(scratch) or {})
            entry = _with_files(recipe, scratch, files, facts)
            for name in entry.files:
                refuse_to_replace(target / name)
                fsync_file(scratch / name)
            # The old entry goes first: from here to the new entry the step counts as absent.
            self.forget(recipe.step)
            for name in entry.files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / name, target / name)
            fsync_directory(target)
            _write_manifest(target / MANIFEST, {**self._entries(recipe.step), recipe.step: entry})
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return entry, True

    def forget(self, step: str) -> None:
        """Remove the step's entry, so that its files are no longer trusted."""
        entries = self._entries(step)
        if entries.pop(step, None) is not None:
            _write_manifest(self.directory(step) / MANIFEST, entries)

    def start(self) -> None:
        """Write an empty manifest, so that the directory is known to be a run."""
        if not (self.path / MANIFEST).exists():
            _write_manifest(self.path / MANIFEST, {})


def _with_files(recipe: Manifest, scratch: Path, files: Sequence[str], facts: dict[str, Any]) -> Manifest:
    names = list(files) or sorted(
        path.relative_to(scratch).as_posix()
        for path in scratch.rglob("*")
        if path.is_file() and path != scratch / MANIFEST
    )
    for name in names:
        # Some writers make files that only their owner may read; a run is as open as its directory.
        os.chmod(scratch / name, 0o666 & ~_umask())
    hashes = {name: sha256_file(scratch / name) for name in names}
    return Manifest(recipe.step, recipe.inputs, recipe.options, recipe.versions, hashes, facts)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _write_manifest(path: Path, entries: Mapping[str, Any]) -> None:
    steps = {name: entry.to_json() if isinstance(entry, Manifest) else entry for name, entry in entries.items()}
    text = json.dumps({"format": FORMAT, "steps": steps}, indent=2, sort_keys=True, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
