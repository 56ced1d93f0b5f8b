"""What a check asks and what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from f3prune.core.errors import ArtifactError, CheckFailed, InputError
from f3prune.core.json_values import from_json_values, json_values, parse_json
from f3prune.core.parity import ROUNDING, ParityNumbers
from f3prune.core.places import read_regular
from f3prune.engines.check._coupling import Coupling

VERSION = 2
SAMPLE = "sample"
_PLACE = ("step", "timestep", "output")
# The cosine that goes with ROUNDING.
_COSINES = {"fp32": 0.99999, "fp16": 0.999, "bf16": 0.99}


@dataclass(frozen=True)
class CheckBounds:
    """What a comparison must keep to; None asks nothing.

    Attributes:
        rel_l2: largest relative L2 of any step.
        cosine: smallest cosine of any step.
        max_abs: largest absolute difference of any step.
        psnr: smallest PSNR of the free-running video, dB.
    """

    rel_l2: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    psnr: float | None = None

    @classmethod
    def for_export(cls, dtype: str) -> CheckBounds:
        """Bounds of an engine in ``fp32``, ``fp16`` or ``bf16`` against PyTorch in fp32.

        Raises:
            InputError: another dtype.
        """
        if dtype not in ROUNDING:
            raise InputError(f"no bounds for dtype {dtype!r}: expected one of {', '.join(ROUNDING)}")
        return cls(rel_l2=ROUNDING[dtype], cosine=_COSINES[dtype])


@dataclass(frozen=True)
class StepParity:
    """One output of one call of the loop: the denoising step, its timestep, the distance there, and which output."""

    step: int
    timestep: float
    numbers: ParityNumbers
    output: str = SAMPLE


@dataclass(frozen=True)
class Comparison:
    """A candidate against a reference.

    Attributes:
        reference: what it is, e.g. ``pruned (PyTorch fp32)``.
        candidate: likewise, e.g. ``engine (onnxruntime fp16)``.
        steps: teacher-forced, in the order of the loop.
        bounds: what was asked.
        psnr: of the free-running videos, dB; None where they were not made.
        video: distance of the free-running videos; None likewise.
    """

    reference: str
    candidate: str
    steps: tuple[StepParity, ...]
    bounds: CheckBounds = CheckBounds()
    psnr: float | None = None
    video: ParityNumbers | None = None

    @property
    def worst(self) -> StepParity | None:
        """The step with the largest relative L2; one with values that are not finite is worse than any other."""
        return max(self.steps, key=lambda item: item.numbers.badness, default=None)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every bound that was missed, in words, NaN and Inf first by name."""
        found = []
        bounds = self.bounds
        for item in self.steps:
            numbers, where = item.numbers, f"step {item.step} (timestep {item.timestep:g})"
            where += "" if item.output == SAMPLE else f" of {item.output}"
            if numbers.non_finite:
                found.append(f"{where}: {numbers.non_finite}")
                continue
            if bounds.rel_l2 is not None and not numbers.rel_l2 <= bounds.rel_l2:
                found.append(f"{where}: relative L2 {numbers.rel_l2:.3g} is above {bounds.rel_l2:g}")
            if bounds.max_abs is not None and not numbers.max_abs <= bounds.max_abs:
                found.append(f"{where}: max abs {numbers.max_abs:.3g} is above {bounds.max_abs:g}")
            if bounds.cosine is not None and not numbers.cosine >= bounds.cosine:
                found.append(f"{where}: cosine {numbers.cosine:.6f} is below {bounds.cosine:g}")
        if self.video is not None and self.video.non_finite:
            found.append(f"final video: {self.video.non_finite}")
        elif bounds.psnr is not None and self.psnr is not None and not self.psnr >= bounds.psnr:
            found.append(f"final video: PSNR {self.psnr:.2f} dB is below {bounds.psnr:g} dB")
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Nothing was missed."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """JSON values, with the verdict for readers; a step's numbers stand beside its place in the loop."""
        values = json_values(self)
        steps = [{**{key: step[key] for key in _PLACE}, **step["numbers"]} for step in values["steps"]]
        return {**values, "passed": self.passed, "failures": list(self.failures), "steps": steps}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Comparison:
        """Read :meth:`to_json`'s values; the verdict is worked out anew."""
        steps = []
        for step in values["steps"]:
            numbers = dict(step)
            place = {key: numbers.pop(key) for key in _PLACE if key in numbers}
            steps.append({**place, "numbers": numbers})
        kept = {name: value for name, value in values.items() if name not in ("passed", "failures")}
        return from_json_values(cls, {**kept, "steps": steps})


@dataclass(frozen=True)
class CheckReport:
    """What ``check`` found.

    Attributes:
        export: pruned PyTorch against the engine.
        pruning: dense against pruned PyTorch; None where the dense denoiser was not at hand.
        coupling: the temporal-coupling test by denoiser: ``dense``, ``pruned``, ``engine``.
        stands_in: why the engine's graph stands in for it, in ONNX Runtime; None where the engine itself ran.
    """

    export: Comparison
    pruning: Comparison | None = None
    coupling: dict[str, Coupling] = field(default_factory=dict)
    stands_in: str | None = None
    version: int = VERSION

    @property
    def failures(self) -> tuple[str, ...]:
        """Every bound that was missed, with the stage it belongs to."""
        stages = {"export": self.export, "pruning": self.pruning}
        return tuple(f"{name}: {text}" for name, stage in stages.items() if stage for text in stage.failures)

    @property
    def passed(self) -> bool:
        """Nothing was missed."""
        return not self.failures

    def require(self) -> None:
        """Raise unless everything passed.

        Raises:
            CheckFailed: with the first failure and the number of all.
        """
        failures = self.failures
        if failures:
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise CheckFailed(
                f"check failed: {failures[0]}{more}; export with `dtype='fp32'` to see whether it is rounding"
            )

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` reads."""
        values = {
            "version": self.version,
            "passed": self.passed,
            "export": self.export.to_json(),
            "pruning": None if self.pruning is None else self.pruning.to_json(),
            "coupling": {name: item.to_json() for name, item in self.coupling.items()},
            "stands_in": self.stands_in,
        }
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CheckReport:
        """Read :meth:`to_json`'s text.

        Raises:
            ArtifactError: it is no such text, or has another version.
        """
        try:
            values = parse_json(text)
            if values["version"] != VERSION:
                raise ArtifactError(
                    f"check report has version {values['version']}, expected {VERSION}: run `check(...)` again"
                )
            pruning = values["pruning"]
            return cls(
                export=Comparison.from_json(values["export"]),
                pruning=None if pruning is None else Comparison.from_json(pruning),
                coupling={name: Coupling.from_json(item) for name, item in values["coupling"].items()},
                stands_in=values["stands_in"],
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"not a check report: {error}; run `check(...)` again") from error

    @classmethod
    def read(cls, path: Path | str) -> CheckReport:
        """Read a report from a file.

        Raises:
            ArtifactError: it is missing or no report.
        """
        try:
            return cls.from_json(read_regular(path).decode(errors="replace"))
        except OSError as error:
            raise ArtifactError(f"no check report at {path}: run `check(...)` first") from error
