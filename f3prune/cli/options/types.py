"""What the values of options are parsed into."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from f3prune.core.choices import shipped_modes
from f3prune.core.places import absolute, refuse_to_replace

MAX_SEED = 2**63 - 1

Command = TypeVar("Command", bound=Callable[..., Any])


class BoundedFloat(click.ParamType[Any]):
    """A finite number in a closed range."""

    name = "number"

    def __init__(self, low: float, high: float = math.inf, meaning: str = "a number") -> None:
        self.low, self.high, self.meaning = low, high, meaning

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; NaN and infinities fail like any other number outside the range."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and self.low <= number <= self.high):
            bounds = f"at least {self.low:g}" if self.high == math.inf else f"between {self.low:g} and {self.high:g}"
            self.fail(f"{value} is not {self.meaning} {bounds}", param, ctx)
        return number


class Fractions(click.ParamType[Any]):
    """Comma-separated numbers from 0 to 1; ``none`` where none at all has a meaning."""

    name = "fractions"

    def __init__(self, meaning: str, may_be_none: bool = False) -> None:
        self._one, self._may_be_none = BoundedFloat(0.0, 1.0, meaning), may_be_none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parse; every one must be such a number."""
        if isinstance(value, tuple):
            return value
        if self._may_be_none and value == "none":
            return ()
        return tuple(self._one.convert(text.strip(), param, ctx) for text in str(value).split(",") if text.strip())


class Alpha(BoundedFloat):
    """A pruning ratio, or ``auto`` for the largest within a budget."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse; ``auto`` stays as it is."""
        return value if value == "auto" else super().convert(value, param, ctx)


class NameList(click.ParamType[Any]):
    """Comma-separated names out of a fixed set."""

    name = "names"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse; an empty text means none of them."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is not one of {', '.join(self.known)}", param, ctx)
        return names


class Mode(click.ParamType[Any]):
    """What takes a pruned unit's place, with its options behind colons: ``pooled:4:1``; ``auto`` where it may be."""

    name = "mode"

    def __init__(self, auto: bool = False) -> None:
        self.known = (*shipped_modes(), *(["auto"] if auto else []))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form; what options a mode has is checked when it is used."""
        name, *options = str(value).split(":")
        if name not in self.known or not all(option.isdecimal() for option in options):
            self.fail(f"{value!r} is not one of {', '.join(self.known)}", param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """All of them."""
        return f"[{'|'.join(self.known)}]"


class ModeList(NameList):
    """Comma-separated modes."""

    def __init__(self) -> None:
        super().__init__(shipped_modes())
        self._one = Mode()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse; every one must be a mode."""
        if isinstance(value, tuple):
            return value
        return tuple(self._one.convert(text.strip(), param, ctx) for text in str(value).split(",") if text.strip())


class Capability(click.ParamType[Any]):
    """A GPU's compute capability, ``8.9``."""

    name = "capability"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form."""
        major, dot, minor = str(value).partition(".")
        if not (dot and major.isdigit() and minor.isdigit()):
            self.fail(f"{value!r} is not written major.minor, e.g. 8.9 (RTX 40) or 12.0 (RTX 50)", param, ctx)
        return str(value)


class NewFile(click.Path):
    """A file to write; a device, a link or a FIFO of that name is refused before any work is done."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Look at what is there."""
        path: Any = super().convert(value, param, ctx)
        refuse_to_replace(absolute(path))
        return path


class Range(click.ParamType[Any]):
    """Three counts, ``1,2,4``: the least, the usual and the most."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        """Check the form and the order."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if len(parts) == 3 and all(part.strip().isdigit() for part in parts):
            low, usual, most = map(int, parts)
            if 1 <= low <= usual <= most:
                return low, usual, most
        return self.fail(f"{value!r} is not least,usual,most, three rising numbers from 1 on, e.g. 1,2,4", param, ctx)


COUNT = click.IntRange(min=1)
FILE = NewFile()
PLACE = click.Path(path_type=Path)


def stack(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply
