"""Packages of the extra ``quality``, imported when they are needed. Imports none of them."""

from __future__ import annotations

import importlib
from typing import Any

from f3prune.core.errors import InputError


def need(module: str, what: str, extra: str = "quality") -> Any:
    """The module, imported.

    Args:
        module: as in ``import module``.
        what: what needs it, for the message.
        extra: the extra of f3prune that installs it.

    Raises:
        InputError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what} needs {error.name}, which is not installed: pip install 'f3prune[{extra}]'"
        ) from error
