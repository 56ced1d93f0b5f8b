"""Tiny random denoisers with their calibration, shared by the tests of the invariants."""

from __future__ import annotations

import copy
import functools

import torch

from f3prune.calibration import Masks, PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
from f3prune.core.calls import outputs_of, sample_of
from f3prune.families import family_of, registry
from f3prune.testing import TINY_SHAPES, VARIANTS, family_name, tiny_denoiser

EVERYWHERE = [("layer", "local"), ("layer", "drop"), ("head", "local"), ("head", "drop"), ("frame-pair", "local")]
OF_LAYOUT = {
    "temporal": [("layer", "static"), ("head", "static")],
    "spatiotemporal": [(unit, mode) for unit in ("layer", "head") for mode in ("window", "pooled")],
}
OPTIONS = {"pooled": "pooled:2"}


def units_of(variant: str) -> list[tuple[str, str]]:
    """Every unit and mode that a variant's sites take."""
    return [*EVERYWHERE, *OF_LAYOUT[registry()[family_name(variant)].layout]]


EACH = [(variant, *unit) for variant in VARIANTS for unit in units_of(variant)]
"""Variant, granularity and mode, of everything."""


class Subject:
    """A dense tiny denoiser, its inputs, its calibration and its dense output; tests must not alter it."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.denoiser = tiny_denoiser(variant)
        self.family = family_of(self.denoiser)
        shape = TINY_SHAPES[variant]
        self.inputs = self.family.synthetic_inputs(self.denoiser, shape, 2, torch.Generator().manual_seed(1))
        self.grid = self.family.token_grid(self.denoiser, self.inputs)
        self.calibration = calibrate(self.denoiser, lambda: denoise_synthetic(self.denoiser, shape, 3, batch=2))
        self.dense = run(self.denoiser, self.inputs)

    def masks(self, alpha: float, granularity: str, mode: str) -> Masks:
        return select_masks(
            self.calibration, PruneConfig(alpha, granularity, mode=OPTIONS.get(mode, mode), score="aas")
        )

    def pruned(self, alpha: float, granularity: str = "layer", mode: str = "local") -> torch.nn.Module:
        return prune_denoiser(copy.deepcopy(self.denoiser), self.masks(alpha, granularity, mode))


def run(denoiser, inputs):
    with torch.no_grad():
        return sample_of(denoiser(**inputs, return_dict=False))


def whole(denoiser, inputs):
    """All that a denoiser returns, in one row: audio beside the video, where there is any."""
    with torch.no_grad():
        outputs = outputs_of(denoiser(**inputs, return_dict=False), family_of(denoiser).outputs)
    return torch.cat([output.flatten() for output in outputs.values()])


def relative(a, b):
    return float((a - b).norm() / b.norm())


subject_of = functools.cache(Subject)
