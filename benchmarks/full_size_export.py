"""Memory and time of exporting CogVideoX-2b at full size: 1.69 B random fp16 weights, latents of 13 x 60 x 90, batch 2.

Nothing is downloaded: the architecture is diffusers' default configuration of the class, which is CogVideoX-2b's. The
export runs in a process of its own, whose peak memory is sampled and read from the operating system.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

from _measure import environment, peak_of, write

LAYERS = 30
SEED = 0


def random_denoiser(layers: int) -> Any:
    """CogVideoX with ``layers`` blocks in fp16, made without ever holding its weights in fp32."""
    import torch
    from accelerate import init_empty_weights
    from diffusers import CogVideoXTransformer3DModel

    with init_empty_weights(include_buffers=False):
        denoiser = CogVideoXTransformer3DModel(num_layers=layers)
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in list(denoiser.named_parameters()):
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
        values = torch.empty(parameter.shape, dtype=torch.float16).uniform_(-scale, scale, generator=generator)
        owner, _, leaf = name.rpartition(".")
        setattr(denoiser.get_submodule(owner), leaf, torch.nn.Parameter(values, requires_grad=False))
    return denoiser.eval()


def prune(denoiser: Any, alpha: float, granularity: str, mode: str, frames: int) -> None:
    """Bake masks chosen from seeded random frame mass: which units go does not matter here, how many does."""
    import torch

    from calibration import Calibration, PruneConfig, prune_denoiser, select_masks
    from calibration.calibration_file import SiteInfo
    from f3prune.families import family_of

    family = family_of(denoiser)
    sites = {site.name: SiteInfo(site.layout, site.heads) for site in family.find_sites(denoiser)}
    generator = torch.Generator().manual_seed(SEED)
    mass = {
        name: torch.rand(1, site.heads, frames, frames + 1, generator=generator).softmax(-1)
        for name, site in sites.items()
    }
    calibration = Calibration(family.name, (500.0,), sites, mass)
    prune_denoiser(denoiser, select_masks(calibration, PruneConfig(alpha, granularity, mode=mode)))


def measure(arguments: argparse.Namespace) -> None:
    """Make, prune if asked, export; print one JSON line."""
    import time

    import torch

    from exporter import ExportConfig, export_denoiser
    from f3prune.families import family_of

    start = time.perf_counter()
    denoiser = random_denoiser(arguments.layers)
    family = family_of(denoiser)
    shape = family.default_shape(denoiser.config)
    if arguments.alpha:
        prune(denoiser, arguments.alpha, arguments.granularity, arguments.mode, shape.frames)
    inputs = family.synthetic_inputs(denoiser, shape, 2, torch.Generator().manual_seed(SEED))
    made = time.perf_counter()
    config = ExportConfig(dtype="fp16", self_test=False)
    result = export_denoiser(denoiser, inputs, arguments.directory, config)
    files = [path for path in Path(arguments.directory).iterdir() if path.is_file()]
    print(
        json.dumps(
            {
                "parameters": sum(p.numel() for p in denoiser.parameters()),
                "weights_gb": round(result.facts.weight_bytes / 1e9, 3),
                "files_gb": round(sum(path.stat().st_size for path in files) / 1e9, 3),
                "graph_mb": round(result.path.stat().st_size / 1e6, 2),
                "nodes": result.facts.nodes,
                "softmaxes": result.facts.operators.get("Softmax", 0),
                "make_seconds": round(made - start, 1),
                "export_seconds": round(time.perf_counter() - made, 1),
                "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the result here too")
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer than 30 for a trial")
    parser.add_argument("--alpha", type=float, default=0.0, help="prune before exporting")
    parser.add_argument("--granularity", default="head")
    parser.add_argument("--mode", default="local")
    parser.add_argument("--directory", help="keep the files here")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="f3prune-") as scratch:
        directory = arguments.directory or scratch
        options = [f"--{name}={getattr(arguments, name)}" for name in ("layers", "alpha", "granularity", "mode")]
        found = peak_of([__file__, "--measure", f"--directory={directory}", *options])
    write(arguments.json, {**environment(), "layers": arguments.layers, "alpha": arguments.alpha, **found})


if __name__ == "__main__":
    main()
