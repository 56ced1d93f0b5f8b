"""Prompts from a file, a zoo model's own list, or the built-in one. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from f3prune.core.atomic_files import canonical_json, sha256_file, sha256_text
from f3prune.core.errors import InputError
from f3prune.core.json_values import parse_json

BUILT_IN = (
    "a red car drives along a coastal road",
    "a dog runs across a field of grass",
    "waves break on a rocky shore at sunset",
    "a person walks through a crowded market",
    "clouds drift over a mountain range",
    "a bird takes off from a branch",
    "a candle flickers in a dark room",
    "a train arrives at a small station",
)
"""Neutral prompts for a model that ships none."""


@dataclass(frozen=True)
class Prompt:
    """What one generation is asked for.

    Attributes:
        text: the prompt; empty where a model is conditioned on an image alone.
        image: path of the conditioning image, or None.
        negative: negative prompt, or None for the pipeline's own.
    """

    text: str
    image: Path | None = None
    negative: str | None = None

    def to_json(self) -> dict[str, str]:
        """The parts that are set, as in a ``.jsonl`` line."""
        value = {"prompt": self.text}
        if self.image is not None:
            value["image"] = str(self.image)
        if self.negative is not None:
            value["negative_prompt"] = self.negative
        return value

    @classmethod
    def from_json(cls, value: dict[str, str]) -> Prompt:
        """The inverse of ``to_json``."""
        image = value.get("image")
        return cls(value["prompt"], Path(image) if image else None, value.get("negative_prompt"))


def prompts_digest(prompts: list[Prompt]) -> str:
    """SHA-256 over texts, negative prompts and the bytes of images."""
    rows = [
        {**prompt.to_json(), **({"image": sha256_file(prompt.image)} if prompt.image is not None else {})}
        for prompt in prompts
    ]
    return sha256_text(canonical_json(rows))


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a ``.txt`` file (one per line) or a ``.jsonl`` file.

    A line of ``.jsonl`` is ``{"prompt": text, "image": path or absent, "negative_prompt": text or absent}``;
    image paths are relative to the file.

    Raises:
        InputError: no such file, empty, not UTF-8, or a line that is not such an object; names the line.
    """
    if path.suffix not in {".txt", ".jsonl"}:
        raise InputError(
            f"`prompts` {path} ends in {path.suffix!r}: give a .txt file (a prompt per line) or a .jsonl file"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"`prompts` {path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"`prompts` {path} cannot be read ({error.strerror}): give a readable file") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise InputError(f"`prompts` {path} is empty: write one prompt per line")
    if path.suffix == ".txt":
        return [Prompt(line) for _, line in lines]
    return [_parse(path, number, line) for number, line in lines]


def _parse(path: Path, number: int, line: str) -> Prompt:
    where = f"`prompts` {path} line {number}"
    example = 'expected {"prompt": "…"}, with "image" and "negative_prompt" as text if any'
    try:
        value: Any = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}): {example}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is a {type(value).__name__}: {example}")
    unknown = sorted(set(value) - {"prompt", "image", "negative_prompt"})
    if unknown:
        raise InputError(f"{where} has an unknown key {unknown[0]!r}: {example}")
    if not isinstance(value.get("prompt", "" if "image" in value else None), str):
        raise InputError(f"{where} has no prompt text: {example}")
    for key in ("image", "negative_prompt"):
        if key in value and not isinstance(value[key], str):
            raise InputError(f"{where}: {key} is a {type(value[key]).__name__}: {example}")
    image = None
    if "image" in value:
        image = (path.parent / value["image"]).resolve()
        if not image.is_file():
            raise InputError(f"{where}: image {value['image']!r} does not exist beside the file: mend the path")
    return Prompt(value.get("prompt", ""), image, value.get("negative_prompt"))


def take(prompts: list[Prompt], count: int | None, where: str) -> list[Prompt]:
    """The first ``count`` prompts.

    Raises:
        InputError: there are not that many.
    """
    if count is None:
        return prompts
    if count > len(prompts):
        raise InputError(f"`num_prompts` is {count}, but {where} has {len(prompts)}: give at most {len(prompts)}")
    return prompts[:count]
