"""Memory and time of pruning, exporting and building published shapes at full size, with the commands that users run.

Nothing is downloaded: the configurations are the published ones, the weights seeded numbers. Frame mass is random too
(calibration at this size is out of a CPU's reach): which units go does not matter here, how many does. Every step runs
in a process of its own, whose peak memory (resident, mapped files included, children too) is sampled.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import environment, peak_of, write

WAN = {"in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "attention_head_dim": 128}


@dataclass(frozen=True)
class Case:
    """A published shape.

    Attributes:
        title: what people call it.
        class_name: of the denoiser, in diffusers.
        config: what differs from the class's defaults.
        dtype: of the stored weights and of the graph.
        batch: of a denoiser call.
        steps: what is measured, in order.
    """

    title: str
    class_name: str
    config: dict[str, Any]
    dtype: str
    batch: int
    steps: tuple[str, ...] = ("prune", "export", "build")


CASES = {
    "cogvideox-2b": Case("CogVideoX-2b", "CogVideoXTransformer3DModel", {}, "fp16", 2),
    "wan-1.3b": Case(
        "Wan 2.1 1.3B",
        "WanTransformer3DModel",
        {**WAN, "num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960},
        "bf16",
        1,
    ),
    "wan-14b": Case(
        "Wan 2.1 14B",
        "WanTransformer3DModel",
        {**WAN, "num_layers": 40, "num_attention_heads": 40, "ffn_dim": 13824},
        "bf16",
        1,
        steps=("prune", "export"),
    ),
}


def prepare(case: Case, folder: Path, layers: int | None) -> None:
    """Write the denoiser with cheap seeded weights, one tensor at a time, and a run directory calibrated with noise."""
    import diffusers
    import torch
    from accelerate import init_empty_weights

    from f3prune.calibration import Calibration
    from f3prune.calibration.calibration_file import SiteInfo
    from f3prune.core.captured_calls import CapturedCall, plain_arguments
    from f3prune.core.manifest import Manifest
    from f3prune.core.run_directory import RunDirectory
    from f3prune.core.tensors import torch_dtype
    from f3prune.core.weights import LazyTensor, save_streaming
    from f3prune.families import family_of
    from f3prune.pipelines.loading import load_denoiser
    from f3prune.pipelines.pipeline_runs import GenerationSettings
    from f3prune.pipelines.prompts import Prompt
    from f3prune.pipelines.sources import resolve
    from f3prune.steps.calibrate import write_measured
    from f3prune.steps.strategy import Measured

    generator = torch.Generator().manual_seed(0)
    block = torch.randn(1 << 20, generator=generator).mul_(0.02).to(torch_dtype(case.dtype))

    def tiled(shape: torch.Size) -> Any:
        return lambda: block.repeat(-(-shape.numel() // block.numel()))[: shape.numel()].view(shape)

    options = {**case.config, **({"num_layers": layers} if layers else {})}
    with init_empty_weights(include_buffers=False):
        model = getattr(diffusers, case.class_name)(**options)
    model.save_config(folder / "model")
    state = {name: LazyTensor.of(t.shape, block.dtype, tiled(t.shape)) for name, t in model.state_dict().items()}
    save_streaming(state, folder / "model" / "diffusion_pytorch_model.safetensors", {"format": "pt"})

    source = resolve(str(folder / "model"))
    denoiser: Any = load_denoiser(source, torch_dtype(case.dtype), lazy=True)
    family = family_of(denoiser)
    shape = family.default_shape(denoiser.config)
    inputs = family.synthetic_inputs(denoiser, shape, case.batch, generator)
    frames = family.token_grid(denoiser, inputs).frames
    sites = {site.name: SiteInfo(site.layout, site.heads) for site in family.find_sites(denoiser)}
    mass = {
        name: torch.rand(1, site.heads, frames, frames + 1, generator=generator).softmax(-1)
        for name, site in sites.items()
    }
    digest = source.digest()
    settings = GenerationSettings(1, num_frames=shape.frames, height=shape.height, width=shape.width)
    run = RunDirectory.create(folder / "run")

    def make(scratch: Path) -> dict[str, Any]:
        calls = [CapturedCall(500.0, plain_arguments(inputs))]
        measured = Measured(Calibration(family.name, (500.0,), sites, mass), calls, denoiser, settings)
        return write_measured(measured, source, [Prompt("")], scratch)

    recipe = Manifest("calibrate", {"source": digest}, {"conditioning": "random frame mass"}, {})
    run.perform(recipe, make, files=("aas.safetensors", "calls.safetensors"))


def measure(name: str, case: Case, layers: int | None, scratch: str | None) -> dict[str, Any]:
    """Peak memory and seconds of every step of one shape; its files are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="f3prune-full-size-", dir=scratch))
    os.environ["F3PRUNE_CACHE"] = str(folder / "cache")
    run = str(folder / "run")
    commands = {
        "prune": ["prune", run, "--alpha", "0.5", "--granularity", "head", "--score", "aas"],
        "export": ["export", run, "--dtype", case.dtype],
        "build": ["build", run, "--backend", "tensorrt-rtx", "--compute-capability", "8.9"],
    }
    try:
        options = ["--prepare", str(folder), "--only", name, *(["--layers", str(layers)] if layers else [])]
        made = {"prepare": peak_of([__file__, *options])}
        stored = (folder / "model" / "diffusion_pytorch_model.safetensors").stat().st_size
        for step in case.steps:
            made[step] = peak_of(["-m", "f3prune", *commands[step]])
            if step == "prune":
                # No later step reads the dense weights: the disk need not hold them.
                os.truncate(folder / "model" / "diffusion_pytorch_model.safetensors", 0)
        weights = (folder / "run" / "onnx" / "denoiser.onnx.data").stat().st_size
        graph = json.loads((folder / "run" / "onnx" / "manifest.json").read_text())["steps"]["onnx"]["facts"]["graphs"]
        return {
            "title": case.title,
            "dtype": case.dtype,
            "layers": layers or case.config.get("num_layers", 30),
            "stored_gb": round(stored / 1e9, 3),
            "weights_gb": round(weights / 1e9, 3),
            "self_test": graph[0]["self_test_skipped"],
            "steps": made,
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The table ``full_size.steps``."""
    lines = [
        "| model | weights | step | peak memory | over weights | time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case in result["cases"].values():
        label = f"{case['title']}, {case['dtype']}, {case['layers']} layers"
        for step in ("prune", "export", "build"):
            if step in case["steps"]:
                found = case["steps"][step]
                ratio = found["peak_gb"] / case["weights_gb"]
                lines.append(
                    f"| {label} | {case['weights_gb']:.1f} GB | {step} | {found['peak_gb']:.1f} GB "
                    f"| {ratio:.2f}× | {found['seconds']:.0f} s |"
                )
    return {"steps": "\n".join(lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the result here too")
    parser.add_argument("--only", action="append", choices=CASES, help="of the shapes; the others' results stay")
    parser.add_argument("--layers", type=int, action="append", help="fewer layers, each in turn")
    parser.add_argument("--scratch", help="directory with room for the weights twice")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    wanted = arguments.only or ["cogvideox-2b", "wan-1.3b"]
    if arguments.prepare:
        prepare(CASES[wanted[0]], arguments.prepare, (arguments.layers or [None])[0])
        return
    kept = {}
    if arguments.only and arguments.json and Path(arguments.json).is_file():
        kept = json.loads(Path(arguments.json).read_text())["cases"]
    cases = dict(kept)
    for name in wanted:
        for layers in arguments.layers or [None]:
            key = f"{name}-{layers}-layers" if layers else name
            cases[key] = measure(name, CASES[name], layers, arguments.scratch)
    write(arguments.json, {"environment": environment(), "cases": cases})


if __name__ == "__main__":
    main()
