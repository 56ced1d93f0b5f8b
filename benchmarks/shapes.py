"""One denoiser call of common shapes on ONNX Runtime's CPU provider: dense and pruned engines beside their ceiling.

Every model has seeded random weights; whole layers are pruned by AAS. Engines are made by the same code as
``f3prune build`` and run in turn within one process. ``plain`` is the dense export in an ordinary session of ONNX
Runtime. Beside every ratio stands what matrix products alone allow, counted in the exported graphs, and beside every
time what the products alone take at the rate that this machine reaches.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from _measure import alternate, environment, write
from _shapes import cogvideox_config

PLAIN = "plain"
SECONDS_PER_SHAPE = 60.0
MOST_ROUNDS, FEWEST_ROUNDS = 9, 3


@dataclass(frozen=True)
class Shape:
    """A denoiser to measure.

    Attributes:
        title: for the table.
        make: the denoiser.
        frames, height, width: latent size; ``None`` for the model's own.
        alphas: pruning ratios, of mode local.
        modes: other modes, at each ratio above zero.
    """

    title: str
    make: Callable[[], Any]
    latent: tuple[int, int, int] | None = None
    alphas: tuple[float, ...] = (0.0, 0.5, 1.0)
    modes: tuple[str, ...] = ()

    def engines(self) -> dict[str, tuple[float, str]]:
        """Name in the tables → pruning ratio and mode."""
        found = {f"alpha={alpha:g}": (alpha, "local") for alpha in self.alphas}
        others = {f"alpha={a:g} {mode}": (a, mode) for mode in self.modes for a in self.alphas if a}
        return {**found, **others}


JOINT_MODES = ("drop", "window:1", "pooled:4:0", "pooled:4:1", "pooled:2:0")
TEMPORAL_MODES = ("drop", "static")


def cogvideox(side: int, frames: int, text: int = 32) -> Callable[[], Any]:
    """CogVideoX of 6 layers of 6 heads of 64, ``frames`` token frames of ``side`` x ``side`` tokens."""

    def make() -> Any:
        from diffusers import CogVideoXTransformer3DModel

        return CogVideoXTransformer3DModel(**cogvideox_config(6, frames, side, text))

    return make


def wan() -> Any:
    """Wan of 4 layers of 4 heads of 128."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=128, num_layers=4, ffn_dim=2048, text_dim=512, freq_dim=256
    )


def latte() -> Any:
    """Latte of 4 spatial and 4 temporal layers of 8 heads of 64."""
    from diffusers import LatteTransformer3DModel

    return LatteTransformer3DModel(
        num_attention_heads=8,
        attention_head_dim=64,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        patch_size=2,
        sample_size=32,
        video_length=16,
        caption_channels=512,
        cross_attention_dim=512,
        norm_type="ada_norm_single",
    )


def animatediff() -> Any:
    """AnimateDiff at half the channels of SD 1.5, its two upper levels: 16 frames, 8 temporal heads."""
    from diffusers import UNetMotionModel

    return UNetMotionModel(
        sample_size=32,
        down_block_types=("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
        up_block_types=("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion"),
        block_out_channels=(160, 320),
        layers_per_block=1,
        cross_attention_dim=384,
        num_attention_heads=8,
        motion_num_attention_heads=8,
        motion_max_seq_length=32,
    )


def svd() -> Any:
    """Stable Video Diffusion at half of its channels, its two upper levels: 14 frames."""
    from diffusers import UNetSpatioTemporalConditionModel

    return UNetSpatioTemporalConditionModel(
        sample_size=32,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(160, 320),
        addition_time_embed_dim=64,
        projection_class_embeddings_input_dim=192,
        layers_per_block=1,
        cross_attention_dim=384,
        num_attention_heads=(4, 8),
        num_frames=14,
    )


SHAPES = {
    "cogvideox-13x256": Shape("CogVideoX, 13 × 256 tokens", cogvideox(16, 13), modes=JOINT_MODES),
    "cogvideox-13x1024": Shape("CogVideoX, 13 × 1024 tokens", cogvideox(32, 13), modes=JOINT_MODES),
    "wan-9x400": Shape("Wan, 9 × 400 tokens", wan, (9, 40, 40), modes=JOINT_MODES),
    "latte-16x256": Shape("Latte, 16 frames of 256 tokens", latte, (16, 32, 32), modes=TEMPORAL_MODES),
    "animatediff-16": Shape("AnimateDiff, 16 frames of 16 × 16", animatediff, (16, 16, 16), modes=TEMPORAL_MODES),
    "svd-14": Shape("Stable Video Diffusion, 14 frames of 16 × 16", svd, (14, 16, 16), modes=TEMPORAL_MODES),
    "cogvideox-5x256": Shape("CogVideoX, 5 × 256 tokens", cogvideox(16, 5), alphas=(0.0, 1.0)),
    "cogvideox-9x256": Shape("CogVideoX, 9 × 256 tokens", cogvideox(16, 9), alphas=(0.0, 1.0)),
    "cogvideox-25x256": Shape("CogVideoX, 25 × 256 tokens", cogvideox(16, 25), alphas=(0.0, 1.0)),
}
LINE = {5: "cogvideox-5x256", 9: "cogvideox-9x256", 13: "cogvideox-13x256", 25: "cogvideox-25x256"}
"""The same model at several numbers of frames."""


def measure(shape: Shape, rates: Any) -> dict[str, Any]:
    """Times, costs and ceilings of one shape's engines."""
    import torch

    from f3prune.bench.costs.ceiling import matmuls_allow
    from f3prune.calibration import PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
    from f3prune.core.weights import randomize_weights
    from f3prune.engines import BuildConfig, build_engine, open_session
    from f3prune.exporter import ExportConfig, export_denoiser, flatten_arguments, graph_costs
    from f3prune.families import LatentShape, family_of

    denoiser = shape.make()
    randomize_weights(denoiser, 0)
    denoiser.eval().requires_grad_(False)
    family = family_of(denoiser)
    latent = family.default_shape(denoiser.config) if shape.latent is None else LatentShape(*shape.latent)
    inputs = family.synthetic_inputs(denoiser, latent, 1, torch.Generator().manual_seed(0))
    tensors = flatten_arguments(inputs).tensors
    calibration = calibrate(denoiser, partial(denoise_synthetic, denoiser, latent, 1), rows=16)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        runs: dict[str, Callable[[], object]] = {}
        flops: dict[str, int] = {}
        for number, (name, (alpha, mode)) in enumerate(shape.engines().items()):
            where = Path(folder) / str(number)
            masks = select_masks(calibration, PruneConfig(alpha, mode=mode, score="aas"))
            pruned = prune_denoiser(copy.deepcopy(denoiser), masks)
            result = export_denoiser(pruned, inputs, where / "onnx", ExportConfig(self_test=False))
            build_engine(result.path, where / "engine", BuildConfig(cache=False), masks_digest=masks.digest)
            session = stack.enter_context(open_session(where / "engine", "cpu"))
            runs[name] = partial(session.run, tensors)
            flops[name] = graph_costs(result.path, {"batch": 1}).matmul_flops
            if alpha == 0:
                runs[PLAIN] = stack.enter_context(plain_session(result.path, tensors))
                flops[PLAIN] = flops[name]
            del pruned
            gc.collect()
        del denoiser
        once = sum(_seconds(run) for run in runs.values())
        rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(SECONDS_PER_SHAPE / (2 * once))))
        times = alternate(runs, rounds, warm_up=0)
    dense = times["alpha=0"]["median"]
    rows = {}
    for name, row in times.items():
        allowed = matmuls_allow(flops["alpha=0"], flops[name])
        least = flops[name] / rates.flops_of("fp32")
        rows[name] = {
            **row,
            "speedup": dense / row["median"],
            "speedup_over_plain": times[PLAIN]["median"] / row["median"],
            "products_allow": allowed,
            "share_of_allowed": dense / row["median"] / allowed,
            "matmul_gflop": flops[name] / 1e9,
            "matmul_seconds": least,
            "matmul_share": least / row["median"],
        }
    return {"title": shape.title, "rounds": rounds, "rows": rows}


@contextmanager
def plain_session(graph: Path, tensors: dict[str, Any]) -> Iterator[Callable[[], object]]:
    """What a user of ONNX Runtime has without this project: the exported graph in an ordinary session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    feeds = {value.name: tensors[value.name].numpy() for value in session.get_inputs()}
    yield lambda: session.run(None, feeds)


def _seconds(run: Callable[[], object]) -> float:
    import time

    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def exponent(times: dict[int, float]) -> float:
    """Slope of log time over log frames, by least squares."""
    points = [(math.log(frames), math.log(seconds)) for frames, seconds in times.items()]
    middle_x, middle_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / sum((x - middle_x) ** 2 for x, _ in points)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown: ``speed``, ``short`` of it, ``frames`` and ``summary``."""
    lines = [
        "| shape | engine | a call | over α = 0 | over plain | GEMM speed-up bound | share of that | products' share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for shape in result["shapes"].values():
        for name, row in shape["rows"].items():
            label = "plain export" if name == PLAIN else name.replace("alpha=", "α = ")
            lines.append(
                f"| {shape['title']} | {label} | {row['median'] * 1e3:,.0f} ms "
                f"[{row['q1'] * 1e3:,.0f}, {row['q3'] * 1e3:,.0f}] | {row['speedup']:.2f}× | "
                f"{row['speedup_over_plain']:.2f}× | {row['products_allow']:.2f}× | {row['share_of_allowed']:.2f} | "
                f"{row['matmul_share']:.2f} |"
            )
    found = {"speed": "\n".join(lines), "short": _short(result)}
    line = {frames: result["shapes"][name]["rows"] for frames, name in LINE.items() if name in result["shapes"]}
    if len(line) > 2:
        rows = [
            "| frames | dense (α = 0) | α = 1 | α = 1 over dense |",
            "| --- | --- | --- | --- |",
            *(
                f"| {frames} | {rows['alpha=0']['median'] * 1e3:,.0f} ms | {rows['alpha=1']['median'] * 1e3:,.0f} ms | "
                f"{rows['alpha=1']['speedup']:.2f}× |"
                for frames, rows in line.items()
            ),
        ]
        fits = {
            name: exponent({frames: rows[name]["median"] for frames, rows in line.items()})
            for name in ("alpha=0", "alpha=1")
        }
        rows.append(f"| exponent of frames | {fits['alpha=0']:.2f} | {fits['alpha=1']:.2f} | |")
        found["frames"] = "\n".join(rows)
    shares = [
        row["share_of_allowed"]
        for shape in result["shapes"].values()
        for name, row in shape["rows"].items()
        if name not in (PLAIN, "alpha=0")
    ]
    found["summary"] = (
        "| pruned engines' share of the GEMM speed-up bound | |\n| --- | --- |\n"
        f"| median | {median(shares):.2f} |\n| worst | {min(shares):.2f} |"
    )
    return found


def _short(result: dict[str, Any]) -> str:
    lines = [
        "| CogVideoX shape | α (layers, `local`) | a call | over plain | over α = 0 | GEMM speed-up bound |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("cogvideox-13x256", "cogvideox-13x1024"):
        shape = result["shapes"].get(name, {"rows": {}})
        for engine, row in shape["rows"].items():
            if engine != PLAIN and " " not in engine:
                lines.append(
                    f"| {shape['title'].removeprefix('CogVideoX, ')} | {engine.removeprefix('alpha=')} | "
                    f"{row['median'] * 1e3:,.0f} ms | {row['speedup_over_plain']:.2f}× | {row['speedup']:.2f}× | "
                    f"{row['products_allow']:.2f}× |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write here after every shape; shapes not measured now are kept")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    options = parser.parse_args()
    from f3prune.bench.costs.machine import measure_machine
    from f3prune.core.json_values import json_values

    rates = measure_machine()
    kept = json.loads(options.json.read_text(encoding="utf-8")) if options.json and options.json.exists() else {}
    result = {"environment": environment(), "rates": json_values(rates), "shapes": dict(kept.get("shapes", {}))}
    for name in options.shapes:
        print(name, file=sys.stderr, flush=True)
        result["shapes"][name] = measure(SHAPES[name], rates)
        result["shapes"] = {known: result["shapes"][known] for known in SHAPES if known in result["shapes"]}
        write(str(options.json) if options.json else None, result)
    print("\n\n".join(tables(result).values()), file=sys.stderr)


if __name__ == "__main__":
    main()
