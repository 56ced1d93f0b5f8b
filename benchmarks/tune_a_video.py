"""One denoising step of Tune-A-Video at Stable Diffusion 1.x width on ONNX Runtime's CPU provider, dense and pruned.

Seeded random weights, 8 frames of 16 x 16 latents, 77 text tokens, batch 1, fp32; whole temporal layers are pruned by
AAS. Every engine is made by the same code as ``f3prune build``. A pruned engine runs in turn with the dense one, two
sessions at a time, because each holds about 4 GB of weights; so every ratio is of times taken in the same minutes. The
row of alpha 0 is the dense engine against itself: its distance from 1 is the noise.

How much there is to gain: the engine without any temporal attention (every ``attn_temp`` dropped, and with it the norm
in front of it) is faster than the dense one by the share of the time that it takes. Beside every ratio stands what that
share allows (Amdahl), ``1 / (1 - share * alpha)``, all layers taken to cost the same; at this width all but the middle
one need nearly the same number of multiply-adds, but not the same time.
"""

from __future__ import annotations

import argparse
import gc
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from _measure import alternate, environment, write

WIDTHS, HEADS, TEXT_WIDTH, GROUPS = (320, 640, 1280, 1280), 8, 768, 32
FRAMES, SIDE, TEXT = 8, 16, 77
ALPHAS, MODES = (0.25, 0.5, 0.75, 1.0), ("local", "drop")
SEED = 0


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def random_denoiser(divisor: int) -> Any:
    """The same weights every time, and never a second copy of them."""
    import torch

    from f3prune.core.weights import randomize_weights
    from f3prune.models import TuneAVideoUNet

    widths = [width // divisor for width in WIDTHS]
    with torch.device("meta"):
        denoiser = TuneAVideoUNet(
            sample_size=SIDE,
            block_out_channels=widths,
            attention_head_dim=HEADS,
            cross_attention_dim=TEXT_WIDTH // divisor,
            norm_num_groups=math.gcd(GROUPS, widths[0]),
        )
    if buffers := [name for name, _ in denoiser.named_buffers()]:
        raise SystemExit(f"{', '.join(buffers)} would stay without values: make the model on the CPU instead")
    denoiser.to_empty(device="cpu")
    randomize_weights(denoiser, SEED)
    return denoiser.eval().requires_grad_(False)


class Engines:
    """Makes engines, and keeps no more on disk than are timed."""

    def __init__(self, divisor: int, folder: Path) -> None:
        import torch

        from f3prune.calibration import calibrate, denoise_synthetic
        from f3prune.families import LatentShape, family_of

        self.divisor, self.folder = divisor, folder
        denoiser = random_denoiser(divisor)
        family, shape = family_of(denoiser), LatentShape(FRAMES, SIDE, SIDE)
        self.inputs = family.synthetic_inputs(denoiser, shape, 1, torch.Generator().manual_seed(SEED))
        text = self.inputs["encoder_hidden_states"].shape[1]
        if text != TEXT:
            raise SystemExit(f"the inputs have {text} text tokens, expected {TEXT}")
        self.parameters = sum(parameter.numel() for parameter in denoiser.parameters())
        self.calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, 1))
        self.sites = len(self.calibration.sites)

    def make(self, name: str, alpha: float, mode: str) -> tuple[Path, dict[str, Any]]:
        """The directory of an engine, and what is in it. The denoiser is gone again when this returns."""
        from f3prune.calibration import PruneConfig, prune_denoiser, select_masks
        from f3prune.core.json_values import json_values
        from f3prune.engines import BuildConfig, build_engine
        from f3prune.exporter import ExportConfig, export_denoiser

        masks = select_masks(self.calibration, PruneConfig(alpha, mode=mode, score="aas"))
        denoiser = prune_denoiser(random_denoiser(self.divisor), masks)
        graph, engine = self.folder / f"{name}-onnx", self.folder / name
        result = export_denoiser(denoiser, self.inputs, graph, ExportConfig(), test_inputs=[self.inputs])
        del denoiser
        gc.collect()
        build_engine(result.path, engine, BuildConfig(cache=False), masks_digest=masks.digest)
        shutil.rmtree(graph)
        pruned = [site for site, mask in masks.stages[0].sites.items() if mask.pruned_heads]
        return engine, {
            "layers_pruned": len(pruned),
            "pruned": pruned,
            "graph": json_values(result.facts),
            "self_test": json_values(result.self_test),
        }


def in_turn(dense: Path, other: Path, inputs: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Seconds of both engines, and how many times faster the other one is."""
    import torch

    from f3prune.engines import open_session

    tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value)}
    with open_session(dense, "cpu") as first, open_session(other, "cpu") as second:
        times = alternate({"dense": lambda: first.run(tensors), "other": lambda: second.run(tensors)}, rounds)
    return {**times, "speedup": times["dense"]["median"] / times["other"]["median"]}


def measure(divisor: int, rounds: int, directory: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        say("making the model, calibrating it, building the dense engine")
        engines = Engines(divisor, Path(scratch))
        dense, facts = engines.make("dense", 0.0, "local")
        rows: list[dict[str, Any]] = []

        def add(alpha: float, mode: str, engine: Path, about: dict[str, Any]) -> None:
            rows.append({"alpha": alpha, "mode": mode, **in_turn(dense, engine, engines.inputs, rounds), **about})
            say(f"alpha {alpha:g} {mode}: {rows[-1]['speedup']:.3f} times as fast as dense")

        add(0.0, "dense", dense, facts)
        for mode in MODES:
            for alpha in ALPHAS:
                say(f"alpha {alpha:g} {mode}: building")
                engine, about = engines.make("pruned", alpha, mode)
                add(alpha, mode, engine, about)
                shutil.rmtree(engine)
    without = next(row for row in rows if row["alpha"] == 1.0 and row["mode"] == "drop")
    share = 1 - 1 / without["speedup"]
    for row in rows:
        row["ceiling"] = 1 / (1 - share * row["alpha"])
    return {
        "parameters": engines.parameters,
        "sites": engines.sites,
        "share_of_temporal_attention": share,
        "rows": rows,
    }


def show(result: dict[str, Any]) -> None:
    """The curve as a table, on standard error."""
    say(f"temporal attention takes {result['share_of_temporal_attention']:.1%} of the dense engine's time")
    say("alpha  mode    dense ms  engine ms  over dense  ceiling")
    for row in result["rows"]:
        before, after = (1e3 * row[name]["median"] for name in ("dense", "other"))
        say(
            f"{row['alpha']:<5g}  {row['mode']:<5}  {before:9.1f}  {after:9.1f}  {row['speedup']:9.3f}x  "
            f"{row['ceiling']:6.3f}x"
        )


def divisor_of(text: str) -> int:
    """A divisor that leaves every head whole channels."""
    found = int(text) if text.isdigit() else 0
    if found < 1 or any(width % (found * HEADS) for width in WIDTHS) or TEXT_WIDTH % found:
        fitting = [n for n in range(1, 41) if not (any(w % (n * HEADS) for w in WIDTHS) or TEXT_WIDTH % n)]
        raise argparse.ArgumentTypeError(f"{text} does not fit: expected one of {', '.join(map(str, fitting))}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--width-scale", type=divisor_of, default=1, help="divide all widths by this, for a quick trial"
    )
    parser.add_argument("--directory", type=Path, help="where the engines lie meanwhile; up to three times the weights")
    options = parser.parse_args()
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
    machine = environment()
    result = measure(options.width_scale, options.rounds, options.directory)
    show(result)
    widths = "/".join(str(width // options.width_scale) for width in WIDTHS)
    shape = (
        f"Tune-A-Video UNet of widths {widths}, {HEADS} heads, {FRAMES} frames of {SIDE} x {SIDE} latents, {TEXT} text "
        f"tokens of {TEXT_WIDTH // options.width_scale}, fp32, batch 1, granularity layer"
    )
    write(options.json, {"environment": machine, "shape": shape, "rounds": options.rounds, **result})


if __name__ == "__main__":
    main()
