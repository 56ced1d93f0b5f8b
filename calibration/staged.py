"""A pruned denoiser with one set of weights per stage of the denoising schedule."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from f3prune.calibration.masks import Masks
from f3prune.core.calls import step_of
from f3prune.core.errors import InputError


class StagedDenoiser(nn.Module):
    """Stands in for ``pipe.transformer`` or ``pipe.unet`` and hands every call to the stage that serves its timestep.

    Whatever else a pipeline asks (``config``, ``dtype``, ``patch_size`` …) the first stage answers.
    """

    def __init__(self, masks: Masks, stages: Sequence[nn.Module]) -> None:
        """Give the masks that say which timesteps each stage serves, and the denoisers pruned with them, in order.

        Raises:
            InputError: not one denoiser per stage.
        """
        super().__init__()
        if len(stages) != len(masks.stages) or not stages:
            raise InputError(f"there are {len(stages)} denoisers for {len(masks.stages)} stages: expected one for each")
        self.masks = masks
        self.stages = nn.ModuleList(stages)
        self._signature = inspect.signature(stages[0].forward)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run one step; arguments and result are the original denoiser's.

        Raises:
            InputError: there is no timestep to choose a stage by.
        """
        timestep = self._signature.bind_partial(*args, **kwargs).arguments.get("timestep")
        if timestep is None:
            raise InputError("a denoiser with stages chooses one by the timestep: pass timestep")
        return self.stages[self.masks.stage_of(step_of(timestep))](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_modules" not in self.__dict__ or "stages" not in self.__dict__["_modules"]:
                raise
            return getattr(self.__dict__["_modules"]["stages"][0], name)
