"""What the denoiser's output loses when units are pruned: the direct measure, on recorded calls."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.bake.attention import KeptPairs
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.masks import Masks, SiteMask
from f3prune.calibration.reference import masked_reference, replaced_output
from f3prune.calibration.replacements import Replacement
from f3prune.calibration.score_table import Granularity, Unit
from f3prune.calibration.unit_masks import one_stage
from f3prune.core.calls import outputs_of
from f3prune.core.errors import InputError
from f3prune.families import family_of

Calls = Sequence[tuple[float, Mapping[str, Any]]]
"""Timestep and forward arguments of recorded calls of the denoiser."""


class OutputError:
    """Squared relative error of the denoiser's output without some units, ``|pruned - dense|² / |dense|²``.

    Of several outputs, as video and audio, it is the mean: a unit may matter to one of them.

    Attributes:
        timesteps: those of the calls, each once, in their order.

    Args:
        denoiser: the dense denoiser; every call leaves it as it was.
        calibration: names the sites.
        calls: what to run; calls of one timestep are averaged.
        granularity: what a unit is.
        replacement: what takes a unit's place.

    Raises:
        InputError: the dense output is zero or not finite, so that nothing can be compared with it.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        calibration: Calibration,
        calls: Calls,
        granularity: Granularity,
        replacement: Replacement,
    ) -> None:
        self._denoiser, self._calibration, self._calls = denoiser, calibration, calls
        self._granularity, self._replacement = granularity, replacement
        # A model that generates token by token leaves its last frame a token short, which frames cannot be cut out of.
        family = family_of(denoiser)
        self._handler = None if family.autoregressive else _PrunedSite
        self._names = family.outputs
        self.timesteps = tuple(dict.fromkeys(timestep for timestep, _ in calls))
        with torch.no_grad():
            self._references = [self._outputs(arguments) for _, arguments in calls]
        for timestep, energy in (
            (timestep, float(reference.square().sum()))
            for (timestep, _), references in zip(calls, self._references, strict=True)
            for reference in references
        ):
            if not math.isfinite(energy):
                raise InputError(
                    f"the denoiser's output at timestep {timestep:g} is not finite: its weights hold NaN or overflow; "
                    f"save or download the model again, or give it in fp32"
                )
            if energy == 0.0:
                raise InputError(
                    f"the denoiser's output at timestep {timestep:g} is zero: leave-one-out has nothing to compare "
                    f"with, so use `score='aas'`"
                )

    def without(self, pruned: Iterable[Unit], timesteps: Collection[float] | None = None) -> torch.Tensor:
        """The error without these units, per timestep (``t``, float64); zero where not asked for."""
        return self.of(one_stage(self._calibration, self._granularity, self._replacement, pruned), timesteps)

    def of(self, masks: Masks, timesteps: Collection[float] | None = None) -> torch.Tensor:
        """The error with masks of one stage, per timestep (``t``, float64); zero where not asked for."""
        errors = torch.zeros(len(self.timesteps), dtype=torch.float64)
        with torch.no_grad(), masked_reference(self._denoiser, masks, handler=self._handler):
            for (timestep, arguments), references in zip(self._calls, self._references, strict=True):
                if timesteps is None or timestep in timesteps:
                    same = len(references) * sum(other == timestep for other, _ in self._calls)
                    for output, reference in zip(self._outputs(arguments), references, strict=True):
                        error = (output - reference).square().sum() / reference.square().sum()
                        errors[self.timesteps.index(timestep)] += float(error) / same
        # What is not a number any more is no small loss.
        return errors.nan_to_num(nan=math.inf, posinf=math.inf)

    def _outputs(self, arguments: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        """What the denoiser gives, float64."""
        found = outputs_of(self._denoiser(**arguments), self._names)
        return tuple(output.double() for output in found.values())


@dataclass(frozen=True)
class _PrunedSite:
    """Attention of a site without the masked units, by the computation that a baked model uses: no whole mask."""

    mask: SiteMask

    def __call__(self, call: AttentionCall) -> torch.Tensor:
        if self.mask.kept_pairs is not None:
            return KeptPairs(self.mask.kept_pairs)(call)
        return replaced_output(call, self.mask, self.mask.stand_in.attend)
