"""Which calls of a generation are skipped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import from_json_values, json_values

VERSION = 1
TOLERANCE = 1e-4
"""Relative difference up to which two timesteps are the same: pipelines round them to the latents' dtype or not."""


@dataclass(frozen=True)
class StepReuse:
    """Denoiser calls that are extrapolated, for generations with exactly these timesteps.

    Attributes:
        timesteps: of a generation's steps, in order, strictly falling.
        skipped: indices of steps whose output is extrapolated; never the first or last, and never before the
            ``order + 1`` computed outputs that extrapolation needs.
        order: 0 repeats the last computed output, 1 continues the line through the last two.
    """

    timesteps: tuple[float, ...]
    skipped: tuple[int, ...]
    order: int = 1

    def __post_init__(self) -> None:
        """Raises ``InputError`` for steps that cannot be skipped."""
        if self.order not in (0, 1):
            raise InputError(f"step reuse of order {self.order}: expected 0 or 1")
        if not all(map(math.isfinite, self.timesteps)) or any(
            later >= earlier for earlier, later in zip(self.timesteps, self.timesteps[1:], strict=False)
        ):
            raise InputError(f"step reuse for timesteps {list(self.timesteps)}: expected finite ones, strictly falling")
        if list(self.skipped) != sorted(set(self.skipped)):
            raise InputError(f"steps {list(self.skipped)} are skipped: expected each once, in order")
        last = len(self.timesteps) - 1
        for index in self.skipped:
            computed = index - sum(other < index for other in self.skipped)
            if not 0 < index < last or computed <= self.order:
                raise InputError(
                    f"step {index} of {last + 1} cannot be skipped: never the last, nor before "
                    f"{self.order + 1} steps were computed"
                )

    @property
    def share(self) -> float:
        """Skipped calls over all calls."""
        return len(self.skipped) / len(self.timesteps) if self.timesteps else 0.0

    def index_of(self, timestep: float) -> int:
        """The step at ``timestep``.

        Raises:
            InputError: this was not chosen for such a timestep.
        """
        for index, known in enumerate(self.timesteps):
            if abs(known - timestep) <= TOLERANCE * max(abs(known), 1e-3):
                return index
        raise InputError(
            f"skipped steps were chosen for {len(self.timesteps)} steps at {self._brief()}, and this generation has a "
            f"step at {timestep:g}: use the same number of steps, or run `reuse(...)` with yours"
        )

    def _brief(self) -> str:
        shown = [f"{timestep:g}" for timestep in self.timesteps]
        return ", ".join(shown if len(shown) <= 4 else [*shown[:2], "…", shown[-1]])

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``from_json`` reads."""
        return {"version": VERSION, **json_values(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StepReuse:
        """Inverse of ``to_json``.

        Raises:
            ArtifactError: another version, or not such values.
        """
        try:
            if value["version"] != VERSION:
                raise ArtifactError(
                    f"step reuse of version {value['version']}: made by another f3prune, run `reuse(...)` again"
                )
            return from_json_values(cls, {name: item for name, item in value.items() if name != "version"})
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"step reuse cannot be read ({error!r}): run `reuse(...)` again") from error


def steps_to_skip(share: float, steps: int) -> int:
    """How many of ``steps`` a share of them is, at least one."""
    return max(1, round(share * steps))
