"""Operations of the matrix products of one denoiser call, site by site, counted without running anything."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from f3prune.calibration.masks import Masks
from f3prune.calibration.prune import prune_denoiser
from f3prune.core.errors import InputError
from f3prune.families import Site
from f3prune.families.classes import denoiser_class


@dataclass(frozen=True)
class SiteProducts:
    """Operations at one site: two for a multiplication and an addition.

    Attributes:
        attention: scores and values.
        projections: linear layers of the site, output projections outside its module included.
    """

    attention: int
    projections: int

    @property
    def total(self) -> int:
        """Both."""
        return self.attention + self.projections


@dataclass(frozen=True)
class Products:
    """Operations of one call.

    Attributes:
        total: of all matrix products and convolutions.
        sites: site name → of them, those at the site.
    """

    total: int
    sites: Mapping[str, SiteProducts]


def without_values() -> FakeTensorMode:
    """A mode in which tensors have shape and dtype alone.

    They say that they are on the CPU: some models ask, and mix them with others that are.
    """
    return FakeTensorMode(allow_non_fake_inputs=True)


def empty_denoiser(class_name: str, config: Mapping[str, Any], fake: FakeTensorMode) -> nn.Module:
    """A denoiser without values.

    Raises:
        InputError: the class refuses the configuration.
    """
    cls = denoiser_class(class_name)
    try:
        with fake:
            model: nn.Module = cls.from_config({**config, "_class_name": class_name})
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{class_name} cannot be made from this configuration ({reason}): check config.json"
        ) from error
    return model.eval().requires_grad_(False)


def count_products(model: nn.Module, inputs: Mapping[str, Any], sites: Sequence[Site]) -> Products:
    """Count the products of a call.

    Args:
        model: a denoiser, dense or pruned, with or without values.
        inputs: forward arguments by name.
        sites: of the dense denoiser.

    Raises:
        InputError: the model cannot run without values, or not at this shape.
    """
    counter = FlopCounterMode(display=False)
    try:
        # As products, which the counter knows; of the fused kernels it knows those of GPUs.
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(**inputs)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise InputError(
            f"what {type(model).__name__} computes depends on values ({error.func}), which counting has none of: "
            "calibrate it and measure it with `bench(...)`"
        ) from error
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{type(model).__name__} cannot run without values at this shape ({reason}): give another number of "
            "`frames`, another `height` or `width`, or calibrate it and measure it with `bench(...)`"
        ) from error
    root = f"{type(model).__name__}."
    counts = {name.removeprefix(root): found for name, found in counter.get_flop_counts().items()}
    return Products(counter.get_total_flops(), {site.name: _at(site, counts) for site in sites})


def _at(site: Site, counts: Mapping[str, Mapping[Any, int]]) -> SiteProducts:
    outside = [name for name, _ in site.outputs if not name.startswith(f"{site.name}.")]
    attention = projections = 0
    for name in (site.name, *outside):
        for operator, flops in counts.get(name, {}).items():
            # Linear layers are mm and addmm; batched products and fused attention are scores and values.
            if "bmm" in str(operator) or "attention" in str(operator):
                attention += flops
            else:
                projections += flops
    return SiteProducts(attention, projections)


def count_pruned(
    class_name: str, config: Mapping[str, Any], masks: Masks, inputs: Mapping[str, Any], sites: Sequence[Site]
) -> Products:
    """Products of a denoiser once ``masks`` (their first stage) are baked into it; its weights are not needed.

    Raises:
        InputError: see ``count_products``.
    """
    fake = without_values()
    model = empty_denoiser(class_name, config, fake)
    with fake:
        prune_denoiser(model, masks)
        shapes = tree_map_only(torch.Tensor, lambda tensor: torch.empty_like(tensor, device="cpu"), dict(inputs))
        return count_products(model, shapes, sites)
