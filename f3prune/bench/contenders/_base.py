"""What a contender is: a choice of method, nothing that holds memory, and where it gets its model from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from f3prune.calibration import PruneConfig
from f3prune.core.errors import InputError
from f3prune.core.json_values import json_values

if TYPE_CHECKING:
    import torch
    from torch import nn

    from f3prune.engines import BuildConfig, StepReuse
    from f3prune.families import Family
    from f3prune.steps.strategy import GenerationStrategy

Status = Literal["absent", "not applicable", "failed"]


@dataclass(frozen=True)
class Missing:
    """Why a contender has no numbers.

    Attributes:
        status: ``absent`` (a package or a device is not there), ``not applicable`` (the method does not know this
            model), or ``failed`` (it was tried).
        reason: one line; for a package that is absent, with its install line.
    """

    status: Status
    reason: str


class BenchContext(Protocol):
    """Where contenders get models, graphs and engines from; what is made stays in the run directory.

    Attributes:
        family: of the denoiser.
        strategy: how it generates.
        device: where it runs.
        dtype: what PyTorch computes in.
        steps: denoising steps of one generation.
        guidance_in_batch: one call of the denoiser serves both halves of classifier-free guidance.
    """

    family: Family
    strategy: GenerationStrategy
    device: torch.device
    dtype: torch.dtype
    steps: int
    guidance_in_batch: bool

    def dense(self) -> nn.Module:
        """The dense denoiser with hooks of its own; its weights are shared by all that ask."""

    def pruned(self, config: PruneConfig) -> nn.Module:
        """A pruned denoiser."""

    def graphs(self, config: PruneConfig | None) -> list[tuple[float, Path]]:
        """Exported graphs, ``(lowest timestep, file)`` for every stage; those of the dense model for None."""

    def build_config(self) -> BuildConfig:
        """How the run's own engine was built."""

    def configuration(self) -> Path:
        """Directory of the denoiser's ``config.json``."""

    def engine(self, config: PruneConfig | None, backend: str) -> AbstractContextManager[nn.Module]:
        """A denoiser on engines that this package builds."""

    def step_reuse(self, share: float) -> StepReuse:
        """The steps to skip, chosen once on the dense engine; raises ``ValueError`` where so many cannot be."""

    def warm_up(self, denoiser: nn.Module) -> None:
        """One whole generation whose result is thrown away."""

    def timestep(self) -> float:
        """Timestep of the call that is running."""


@dataclass(frozen=True)
class Contender(ABC):
    """A way of running the denoiser.

    Attributes:
        kind: its name in JSON and on the command line.
        own: it runs on an engine of this package.
    """

    kind: ClassVar[str]
    own: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it; different for contenders that differ."""

    @property
    def pruning(self) -> PruneConfig | None:
        """What is pruned; None for a dense model."""
        found: PruneConfig | None = vars(self).get("config")
        return found

    @property
    def required(self) -> bool:
        """Whether there is no contest without it: if it fails, everything does."""
        return False

    def missing(self, context: BenchContext) -> Missing | None:
        """Why it cannot be tried here, or None if it can."""
        del context
        return None

    @abstractmethod
    def opened(self, context: BenchContext) -> AbstractContextManager[Opened]:
        """The denoiser, ready to be called like the original, for as long as the context lasts."""

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``from_json`` reads."""
        return {"kind": self.kind, **json_values(self)}


@dataclass
class Opened:
    """A contender that can be called.

    Attributes:
        denoiser: stands in for the original.
        facts: what preparing it cost or found; JSON values.
    """

    denoiser: nn.Module
    facts: dict[str, Any]


def label_of(config: PruneConfig) -> str:
    """What is pruned, in few words, e.g. ``α=0.5 layer local``."""
    parts = [f"α={config.alpha:g}", config.granularity, config.mode]
    if config.aggregate != "timesteps":
        parts.append(f"over {config.aggregate}")
    if config.stages > 1:
        parts.append(f"{config.stages} stages")
    return " ".join(parts)


def config_from_json(value: Mapping[str, Any] | None) -> PruneConfig | None:
    """Read ``asdict`` of a pruning configuration back.

    Raises:
        InputError: it is none.
    """
    if value is None:
        return None
    try:
        lists = {name: tuple(value.get(name, ())) for name in ("protect", "candidates")}
        return PruneConfig(**{**value, **lists})
    except TypeError as error:
        raise InputError(
            f"{dict(value)} is no pruning configuration ({error}): expected alpha, granularity …"
        ) from error


def read(kinds: Mapping[str, type[Contender]], value: Mapping[str, Any]) -> Contender:
    """Inverse of ``Contender.to_json``.

    Raises:
        InputError: an unknown kind, or fields that it does not have.
    """
    values = dict(value)
    kind = values.pop("kind", None)
    if kind not in kinds:
        raise InputError(f"no contender {kind!r}: expected one of {', '.join(kinds)}")
    cls = kinds[kind]
    if unknown := sorted(set(values) - {item.name for item in fields(cls)}):
        raise InputError(f"contender {kind} has no field {unknown[0]!r}: written by another f3prune")
    if isinstance(values.get("config"), Mapping):
        values["config"] = config_from_json(values["config"])
    try:
        return cls(**values)
    except TypeError as error:
        raise InputError(f"contender {kind} cannot be read ({error}): written by another f3prune") from error
