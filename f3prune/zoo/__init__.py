"""Small trained text-to-video pipelines that come with the package, for trying every stage without a download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from f3prune.core.errors import InputError

__all__ = ["HOME", "card", "names", "path"]

PREFIX = "zoo:"
HOME = Path(__file__).parent
"""The folder that the models lie in."""


def names() -> list[str]:
    """Names of the built-in models, without the `zoo:` prefix; their packages have `_` for `-`."""
    return sorted(index.parent.parent.name.replace("_", "-") for index in HOME.glob("*/pipeline/model_index.json"))


def path(name: str) -> Path:
    """The diffusers pipeline directory of a built-in model (`digits` or `zoo:digits`).

    Raises `InputError` if there is no model of that name.
    """
    plain = name.removeprefix(PREFIX)
    known = names()
    if plain not in known:
        raise InputError(f"no built-in model is called '{plain}'; there is: {', '.join(known) or 'none'}")
    return HOME / plain.replace("-", "_") / "pipeline"


def card(name: str) -> dict[str, Any]:
    """The measured properties of a built-in model: recommended settings, accuracy, size and training.

    `card(name)["recommended"]` holds `guidance_scale`, and `num_inference_steps` of a model that denoises or
    `temperature` and `top_k` of one that draws tokens.
    """
    loaded: dict[str, Any] = json.loads((path(name) / "card.json").read_text(encoding="utf-8"))
    return loaded
