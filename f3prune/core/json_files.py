"""JSON that others wrote: in files of models, prompts and runs. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from f3prune.core.errors import InputError
from f3prune.core.places import read_regular


def parse_json(text: str | bytes) -> Any:
    """A JSON value, without what is no JSON but Python reads all the same: NaN and infinities.

    Raises:
        ValueError: not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode(), parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model.

    Raises:
        InputError: not JSON, or not an object.
    """
    try:
        value = parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): download or save the model again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, expected a JSON object: save the model again")
    return value
