"""What may be read and replaced: plain files and f3prune's own folders, and no links out of a run (CWE-59).

A device, a FIFO or a socket in a file's place is neither opened nor replaced. Imports no torch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from f3prune.core.errors import InputError

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}


def absolute(path: Path | str) -> Path:
    """The path from the root on: no program reads it as an option, or as a protocol as in ``http:/…``.

    Raises:
        InputError: it is relative, and the working directory was deleted.
    """
    try:
        return Path(path).absolute()
    except OSError as error:
        raise InputError("the working directory does not exist any more: change to one that does") from error


def refuse_to_replace(path: Path, folder: bool = False, own: str | None = None) -> None:
    """Refuse to write where something of another kind is.

    Args:
        path: what is to be written; where nothing is, nothing is refused.
        folder: a directory is to be written; else a file.
        own: name of a file that f3prune's directories have: one that holds other things without it is refused.

    Raises:
        InputError: there is a link, a device, a FIFO, a socket, a directory where a file is to be or the reverse, or
            somebody else's directory.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise InputError(
            f"{path} cannot be written: a part of its path is a file, not a directory; give another place"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give another name") from error
    kind = stat.S_IFMT(found.st_mode)
    if kind != (stat.S_IFDIR if folder else stat.S_IFREG):
        wanted = "directory" if folder else "regular file"
        raise InputError(f"{path} is {_KINDS.get(kind, 'something else')}, and no {wanted}: give another name")
    if folder and own is not None and os.listdir(path) and not os.path.lexists(path / own):
        raise InputError(f"{path} holds files that f3prune did not write there: move them, or give another name")


def open_regular(path: Path | str, flags: int = os.O_RDONLY, directory: int | None = None) -> int:
    """A descriptor of a regular file; what blocks when it is opened (a FIFO) never is waited for.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644, dir_fd=directory)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"is {_KINDS.get(kind, 'something else')}, and no regular file", str(path))
    return descriptor


def read_regular(path: Path | str) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=open_regular) as stream:
        return stream.read()


def open_in(root: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file below a directory. ``root`` may be a link; nothing below it is followed.

    Raises:
        OSError: it cannot be opened, a part of ``name`` is a link, or it is no regular file.
    """
    *folders, last = Path(name).parts
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = below
        return open_regular(last, flags | os.O_NOFOLLOW, directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = "is a link"
        raise
    finally:
        os.close(directory)


def links_below(root: Path) -> Iterator[Path]:
    """Every link at any depth below a directory."""
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                yield from links_below(Path(entry.path))
