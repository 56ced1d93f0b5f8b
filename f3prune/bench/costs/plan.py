"""What pruning a model can give and what it will take, from its configuration alone: nothing is loaded or run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from f3prune.bench.costs.machine import MachineRates
from f3prune.bench.costs.published import PREFIX, published
from f3prune.calibration import Calibration, PruneConfig, prune_denoiser, select_masks
from f3prune.calibration.auto.products import Products, count_products, empty_denoiser, without_values
from f3prune.calibration.calibration_file import SiteInfo
from f3prune.core.choices import DEFAULT
from f3prune.core.errors import InputError
from f3prune.core.json_values import read_json
from f3prune.core.tensors import torch_dtype
from f3prune.families import LatentShape, family_of
from f3prune.pipelines.sources import resolve
from f3prune.steps.strategy import strategy_of

LIBRARIES_BYTES = 0.9e9
"""Resident memory of the libraries that export and build import."""
EXPORT_PEAK, BUILD_PEAK = 0.1, 3.0
"""Peak memory over the weights, beside the libraries: the export's of docs/performance.md, and a dense build's.
With half of the heads pruned, as on that page, a build takes 2.3."""
CHECK_LIBRARIES_BYTES, ENGINE_PEAK = 0.5e9, 1.1
"""Of a check: what its libraries take, and the peak of ONNX Runtime over the weights in fp32."""
EXPORT_SECONDS, BUILD_SECONDS = 32.0, 19.0
"""Seconds per GB of weights, as measured there on two cores."""
FILES = {"pruned/": 1.0, "onnx/": 1.0, "engine/": 1.0}
"""What a run directory holds, over the pruned weights."""


@dataclass(frozen=True)
class PlanOptions:
    """What to plan for.

    Attributes:
        alphas: pruning ratios.
        granularity: ``layer`` or ``head``.
        mode: what takes a pruned unit's place, see ``PruneConfig``; its default depends on the model.
        dtype: of the graph.
        frames, height, width: of the latents; ``None`` for the model's own.
        batch: of one denoiser call; ``None``: two, for guidance, or what a published pipeline does.
    """

    alphas: tuple[float, ...] = (0.25, 0.5, 1.0)
    granularity: str = "layer"
    mode: str = DEFAULT
    dtype: str = "fp16"
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Outlook:
    """One pruning ratio.

    Attributes:
        alpha: the ratio; 0 is the dense model.
        parameters: left.
        flops: floating-point operations of all matrix products and convolutions in a call.
        attention_flops: of them, scores and values at the sites.
        projection_flops: of them, the sites' projections.
        products_allow: Amdahl ceiling, dense operations over these.
        seconds: what the products alone take at this machine's rate.
        weights_bytes: of the graph.
        export_peak_bytes, build_peak_bytes: peak memory to expect of export and of a TensorRT-RTX build.
        check_peak_bytes: of a check on the CPU, denoisers in PyTorch in fp32 and the graph in ONNX Runtime.
        check_offloaded_bytes: the same with the denoisers' weights in their files.
        export_seconds, build_seconds: time to expect of them on two cores.
        disk_bytes: of the run directory.
    """

    alpha: float
    parameters: int
    flops: int
    attention_flops: int
    projection_flops: int
    products_allow: float
    seconds: float
    weights_bytes: int
    export_peak_bytes: float
    build_peak_bytes: float
    check_peak_bytes: float
    check_offloaded_bytes: float
    export_seconds: float
    build_seconds: float
    disk_bytes: float


@dataclass(frozen=True)
class Plan:
    """Attributes:
    title: the model.
    family: its family's name.
    unit: what a call is: of the denoiser, or of CogVideo a pass over a clip.
    shape: what the latents are.
    sites: number of sites.
    outlooks: dense first, then by ratio.
    """

    title: str
    family: str
    unit: str
    shape: Mapping[str, int]
    sites: int
    outlooks: tuple[Outlook, ...]


def plan(spec: str, options: PlanOptions, rates: MachineRates) -> Plan:
    """Count what a model and its pruned versions compute, without values.

    Which units go does not change what is left to compute where sites are alike, so without a calibration they go in
    the order of the sites.

    Args:
        spec: MODEL, or ``published:NAME``.
        options: what to plan for.
        rates: of the machine that the times are for.

    Raises:
        InputError: MODEL cannot be found or made from its configuration, or the shape does not fit it.
        UnknownFamilyError: its denoiser is of no supported family.
    """
    title, class_name, config, latent, batch = _configuration(spec)
    fake = without_values()
    denoiser = empty_denoiser(class_name, config, fake)
    family = family_of(denoiser)
    own = LatentShape(*latent) if latent is not None else family.default_shape(_config(denoiser))
    shape = LatentShape(options.frames or own.frames, options.height or own.height, options.width or own.width)
    batch = options.batch or batch
    with fake:
        inputs = family.synthetic_inputs(denoiser, shape, batch, torch.Generator().manual_seed(0))
    grid = family.token_grid(denoiser, inputs)
    found = family.find_sites(denoiser)
    sites = {site.name: SiteInfo(site.layout, site.heads) for site in found}
    mass = {name: torch.zeros(1, info.heads, grid.frames, grid.frames + 1) for name, info in sites.items()}
    calibration = Calibration(family.name, (0.0,), sites, mass, grid)
    outlooks: list[Outlook] = []
    for alpha in (0.0, *sorted(set(options.alphas) - {0.0})):
        model = empty_denoiser(class_name, config, fake) if outlooks else denoiser
        masks = select_masks(calibration, PruneConfig(alpha, options.granularity, mode=options.mode, score="aas"))  # type: ignore[arg-type]
        with fake:
            prune_denoiser(model, masks)
            counted = count_products(model, {**inputs, "return_dict": False}, found)
        dense = outlooks[0].flops if outlooks else counted.total
        parameters = outlooks[0].parameters if outlooks else sum(weight.numel() for weight in model.parameters())
        outlooks.append(_outlook(alpha, model, counted, dense, parameters, options.dtype, rates))
    size = {"batch": batch, "frames": shape.frames, "height": shape.height, "width": shape.width}
    return Plan(title, family.name, strategy_of(family).call, size, len(sites), tuple(outlooks))


def does_not_fit(found: Plan, where: Path, memory_bytes: int) -> list[str]:
    """What of a plan this machine has no room for, a line each, with the ratios that it is true of.

    Args:
        found: the plan.
        where: the directory that a run would go to.
        memory_bytes: of this machine.
    """
    free = shutil.disk_usage(where).free
    short: dict[str, list[float]] = {}
    for outlook in found.outlooks:
        steps = {"export": outlook.export_peak_bytes, "build": outlook.build_peak_bytes}
        for step, needed in {**steps, "check": outlook.check_peak_bytes}.items():
            if needed > memory_bytes:
                line = (
                    f"{step} needs about {needed / 1e9:.0f} GB of memory, this machine has {memory_bytes / 1e9:.0f} GB"
                )
                short.setdefault(f"{line}: {step} on a larger one", []).append(outlook.alpha)
        if outlook.disk_bytes > free:
            line = f"a run takes about {outlook.disk_bytes / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free"
            short.setdefault(f"{line}: make room, or run elsewhere", []).append(outlook.alpha)
    return [f"α = {', '.join(f'{alpha:g}' for alpha in alphas)}: {line}" for line, alphas in short.items()]


def _configuration(spec: str) -> tuple[str, str, dict[str, Any], tuple[int, int, int] | None, int]:
    """Title, class, configuration, latent shape and batch of MODEL."""
    if spec.startswith(PREFIX):
        known = published(spec)
        return known.title, known.class_name, dict(known.config), known.latent, known.batch
    try:
        source = resolve(spec, random_weights=True)
    except InputError:
        # A pipeline has weights of its own.
        source = resolve(spec)
    source.family()
    return spec, source.denoiser_class, read_json(source.denoiser_path / "config.json"), None, 2


def _config(denoiser: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] = denoiser.config
    return config


def check_peak_bytes(dense: int, pruned: int) -> float:
    """Peak memory of a check on the CPU: of one denoiser at a time, the largest.

    Args:
        dense: parameters of the dense model in PyTorch; 0 where weights stay in their files.
        pruned: those of the graph in ONNX Runtime.
    """
    return CHECK_LIBRARIES_BYTES + max(4.0 * dense, ENGINE_PEAK * 4.0 * pruned)


def _outlook(
    alpha: float,
    model: nn.Module,
    products: Products,
    dense: int,
    dense_parameters: int,
    dtype: str,
    rates: MachineRates,
) -> Outlook:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = parameters * torch_dtype(dtype).itemsize
    return Outlook(
        alpha=alpha,
        parameters=parameters,
        flops=products.total,
        attention_flops=sum(site.attention for site in products.sites.values()),
        projection_flops=sum(site.projections for site in products.sites.values()),
        products_allow=dense / products.total,
        seconds=products.total / rates.flops_of(dtype),
        weights_bytes=weights,
        export_peak_bytes=LIBRARIES_BYTES + EXPORT_PEAK * weights,
        build_peak_bytes=LIBRARIES_BYTES + BUILD_PEAK * weights,
        check_peak_bytes=check_peak_bytes(dense_parameters, parameters),
        check_offloaded_bytes=check_peak_bytes(0, parameters),
        export_seconds=EXPORT_SECONDS * weights / 1e9,
        build_seconds=BUILD_SECONDS * weights / 1e9,
        disk_bytes=sum(FILES.values()) * weights,
    )
