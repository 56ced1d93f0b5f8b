"""What a check asks and what it found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from f3prune.core.errors import ArtifactError, CheckFailed, InputError
from f3prune.core.json_files import parse_json
from f3prune.core.places import read_regular
from f3prune.engines.check._coupling import Coupling
from f3prune.engines.check._parity import ParityNumbers, decode_float, encode_float

VERSION = 1
# Relative L2 that one step of an engine may be off by rounding alone, and the cosine that goes with it.
_EXPORT_BOUNDS = {"fp32": (1e-4, 0.99999), "fp16": (2e-2, 0.999), "bf16": (1e-1, 0.99)}


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
        if dtype not in _EXPORT_BOUNDS:
            raise InputError(f"no bounds for dtype {dtype!r}: expected one of {', '.join(_EXPORT_BOUNDS)}")
        rel_l2, cosine = _EXPORT_BOUNDS[dtype]
        return cls(rel_l2=rel_l2, cosine=cosine)


@dataclass(frozen=True)
class StepParity:
    """One call of the loop: the denoising step, its timestep and the distance there."""

    step: int
    timestep: float
    numbers: ParityNumbers


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
        return max(self.steps, key=lambda item: _badness(item.numbers), default=None)

    @property
    def failures(self) -> tuple[str, ...]:
        """Every bound that was missed, in words, NaN and Inf first by name."""
        found = []
        bounds = self.bounds
        for item in self.steps:
            numbers, where = item.numbers, f"step {item.step} (timestep {item.timestep:g})"
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

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with the verdict for readers."""
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "passed": self.passed,
            "failures": list(self.failures),
            "bounds": vars(self.bounds),
            "psnr": encode_float(self.psnr),
            "video": None if self.video is None else self.video.to_dict(),
            "steps": [{"step": item.step, "timestep": item.timestep, **item.numbers.to_dict()} for item in self.steps],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Read :meth:`to_dict`'s values; the verdict is worked out anew."""
        steps = []
        for item in values["steps"]:
            numbers = {name: value for name, value in item.items() if name not in ("step", "timestep")}
            steps.append(StepParity(int(item["step"]), float(item["timestep"]), ParityNumbers.from_dict(numbers)))
        video = values["video"]
        return cls(
            reference=str(values["reference"]),
            candidate=str(values["candidate"]),
            steps=tuple(steps),
            bounds=CheckBounds(**values["bounds"]),
            psnr=decode_float(values["psnr"]),
            video=None if video is None else ParityNumbers.from_dict(video),
        )


@dataclass(frozen=True)
class CheckReport:
    """What ``check`` found.

    Attributes:
        export: pruned PyTorch against the engine.
        pruning: dense against pruned PyTorch; None where the dense denoiser was not at hand.
        coupling: the temporal-coupling test by denoiser: ``dense``, ``pruned``, ``engine``.
    """

    export: Comparison
    pruning: Comparison | None = None
    coupling: dict[str, Coupling] = field(default_factory=dict)
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
            "export": self.export.to_dict(),
            "pruning": None if self.pruning is None else self.pruning.to_dict(),
            "coupling": {name: item.to_dict() for name, item in self.coupling.items()},
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
                    f"check report has version {values['version']}, expected {VERSION}: run check again"
                )
            pruning = values["pruning"]
            return cls(
                export=Comparison.from_dict(values["export"]),
                pruning=None if pruning is None else Comparison.from_dict(pruning),
                coupling={name: Coupling.from_dict(item) for name, item in values["coupling"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"not a check report: {error}; run check again") from error

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


def _badness(numbers: ParityNumbers) -> tuple[bool, float]:
    return bool(numbers.non_finite), numbers.rel_l2 if numbers.rel_l2 == numbers.rel_l2 else 0.0
