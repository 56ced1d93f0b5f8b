"""Every exception f3prune raises on purpose, in one tree.

    F3PruneError
    ├── InputError               the user can mend it: a path, a value, a name            exit 2
    │   ├── UnknownFamilyError   a denoiser class without a family declaration
    │   ├── UnknownSiteError     a site name or glob that matches nothing
    │   ├── ArtifactError        a file of a run directory is missing, altered or foreign
    │   └── BackendError         a backend is absent, or cannot run on this machine
    ├── ExportError              the graph could not be exported or failed its self-test  exit 1
    ├── BuildError               a backend refused the graph                              exit 1
    └── CheckFailed              a parity check or a measurement missed its bound         exit 1

A message names the value, what was expected and the next step, in one line. Exceptions of other libraries are mapped
with ``raise … from``.
"""

from __future__ import annotations


class SlowerWarning(UserWarning):
    """Something works, but slower than it could; one line that says what and why."""


class F3PruneError(Exception):
    """Base of every exception that f3prune raises on purpose. Its message is one line that says what to do.

    Attributes:
        exit_code: what the command line returns: 2 where the user can mend it, 1 where a check or a build failed.

    Examples:
        >>> try:
        ...     raise ArtifactError("masks.json is missing: run prune first")
        ... except F3PruneError as error:
        ...     print(error.exit_code, error)
        2 masks.json is missing: run prune first
    """

    exit_code = 1


class InputError(F3PruneError):
    """Something the user gave is wrong, and the message says how to mend it."""

    exit_code = 2


class UnknownFamilyError(InputError):
    """The denoiser's class has no family declaration."""


class UnknownSiteError(InputError):
    """A site name or glob matches no site of the denoiser."""


class ArtifactError(InputError):
    """A file of a run directory is missing, was cut short or altered, or was made from other inputs."""


class BackendError(InputError):
    """A backend is not installed, or cannot run on this machine."""


class ExportError(F3PruneError):
    """The denoiser could not be exported, or its graph disagrees with PyTorch."""


class BuildError(F3PruneError):
    """A backend refused to build an engine from the graph."""


class CheckFailed(F3PruneError):
    """A parity check or a measurement missed its bound."""


def reason_of(error: Exception, longest: int = 200) -> str:
    """What an exception of another library says, in one line of at most ``longest`` characters; its type if nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__
