"""Every way to run a denoiser, in turn, by whole generations: quality beside time, for the families in the table.

The built-in model runs as its pipeline and is compared by pixels; the others have random weights under which every
site matters, run a denoising loop over seeded noise and conditioning, and are compared by final latents. Everything is
made by the code of ``f3prune bench RUN --contenders all``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _measure import environment, write
from _shapes import cogvideox_config

PICTURE = Path("docs/bench-contenders.png")


@dataclass(frozen=True)
class Subject:
    """A model of the table.

    Attributes:
        title: what the table calls it.
        model: MODEL, or the name of a denoiser's class.
        config: of that class.
        shape: latent frames, height, width.
        steps: denoising steps of a generation.
        contest: options of the contest, beside its defaults.
        rows: query tokens per frame that calibration samples; None measures all.
    """

    title: str
    model: str
    steps: int
    config: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None
    contest: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None


SUBJECTS = {
    "digits": Subject(
        "zoo:digits, trained, 8 frames × 64 tokens",
        "zoo:digits",
        16,
        contest={"rounds": 3, "alphas": (0.25, 0.5, 1.0)},
    ),
    "wan": Subject(
        "Wan-shaped, 4 layers, 4 heads × 64, 9 frames × 256 tokens",
        "WanTransformer3DModel",
        8,
        {
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "num_layers": 4,
            "ffn_dim": 1024,
            "text_dim": 256,
            "freq_dim": 256,
        },
        (9, 32, 32),
        {"rounds": 3, "granularities": ("layer",), "alphas": (0.5, 1.0)},
        rows=16,
    ),
    "latte": Subject(
        "Latte-shaped, 4 layers, 4 heads × 64, 16 frames × 144 tokens",
        "LatteTransformer3DModel",
        8,
        {
            "num_attention_heads": 4,
            "attention_head_dim": 64,
            "num_layers": 4,
            "in_channels": 4,
            "out_channels": 8,
            "cross_attention_dim": 256,
            "caption_channels": 256,
            "attention_bias": True,
            "sample_size": 24,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "norm_eps": 1e-6,
            "video_length": 16,
        },
        (16, 24, 24),
        {"rounds": 3, "granularities": ("layer",), "alphas": (0.5, 1.0)},
    ),
    "cogvideox": Subject(
        "CogVideoX-shaped, 4 layers, 6 heads × 64, 9 frames × 256 tokens",
        "CogVideoXTransformer3DModel",
        6,
        cogvideox_config(layers=4, frames=9),
        (9, 32, 32),
        {"rounds": 3, "granularities": ("layer",), "modes": ("local",), "alphas": (0.5, 1.0)},
        rows=16,
    ),
}


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def compare(subject: Subject, folder: Path, budget_s: float) -> dict[str, Any]:
    """Calibrate, prune, export and build a run, and hold the contest in it."""
    import diffusers
    import torch

    from f3prune.bench.contest import ContestOptions, contest
    from f3prune.calibration import PruneConfig
    from f3prune.core.run_directory import RunDirectory
    from f3prune.pipelines.pipeline_runs import GenerationSettings
    from f3prune.steps.build import build
    from f3prune.steps.calibrate import CalibrateOptions, calibrate
    from f3prune.steps.export import export
    from f3prune.steps.prune import prune

    model, settings = subject.model, GenerationSettings(steps=subject.steps)
    if subject.config:
        with torch.device("meta"):
            getattr(diffusers, model)(**subject.config).save_config(folder / "model")
        frames, height, width = subject.shape or (None, None, None)
        settings = GenerationSettings(steps=4, num_frames=frames, height=height, width=width)
        model = str(folder / "model")
    run = RunDirectory.create(folder / "run")
    options = CalibrateOptions(model, settings=settings, rows=subject.rows, random_weights=bool(subject.config))
    calibrate(run, options)
    prune(run, PruneConfig(max(subject.contest.get("alphas", (0.5,))), mode="local", score="aas"))
    export(run)
    build(run)
    return contest(run, ContestOptions(steps=subject.steps, budget_s=budget_s, **subject.contest))


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Markdown: every contender of each model; ``summary`` and ``short``: the hardest of them at equal quality."""
    blocks = {name: _model_table(found) for name, found in result["models"].items()}
    lines = [
        "| model | PyTorch | hardest other | its PSNR | ours at equal PSNR | ours over it | over unpruned others "
        "| without skipping |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    short = [
        "| model | hardest of all others at equal PSNR | its PSNR | ours | ours over it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in result["models"].items():
        dense = next(row for row in found["rows"] if row["contender"]["kind"] == "pytorch")
        best, unpruned, computing = found["best_other"], found["best_other_without_pruning"], _without_skipping(found)
        title = result["titles"][name]
        quality = f"{_psnr(best['psnr'], found)} | {best['own'] or 'none as good'} | {_ratio(best)}"
        lines.append(
            f"| {title} | {dense['denoising']['median']:.2f} s | {best['other']} | {quality} | {_ratio(unpruned)} | "
            f"{computing:.2f}× |"
        )
        short.append(f"| {title} | {best['other']} | {quality} |")
    return {**blocks, "summary": "\n".join(lines), "short": "\n".join(short)}


def _without_skipping(found: Mapping[str, Any]) -> float:
    """The least of ours over others at equal PSNR, if our engines computed every step; 0 where none is as good."""
    from f3prune.bench.contest import point_of
    from f3prune.bench.equal_quality import hardest, matches

    rows = [row for row in found["rows"] if row["status"] == "measured" and not row["contender"].get("skip")]
    hard = hardest(matches(point_of(row) for row in rows))
    return 0.0 if hard is None or hard.ratio is None else hard.ratio


def _model_table(found: Mapping[str, Any]) -> str:
    lines = [
        f"{found['what']}; times are medians [quartiles] of "
        f"{min(row['denoising']['runs'] for row in found['rows'] if row['status'] == 'measured')} generations.",
        "",
        "| contender | denoising | over PyTorch | generation | products' share | GEMM speed-up bound | PSNR | SSIM "
        "| ours at equal PSNR |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    matched = {match["other"]: match for match in found["equal_quality"]}
    dense = next(row for row in found["rows"] if row["contender"]["kind"] == "pytorch")
    for row in found["rows"]:
        if row["status"] != "measured":
            lines.append(f"| {row['name']} | {row['status']}: {row['reason']} | | | | | | | |")
            continue
        times, match = row["denoising"], matched.get(row["name"])
        ours = "" if match is None else f"{_ratio(match)} ({match['own'] or 'none as good'})"
        name = f"**{row['name']}**" if row["own"] else row["name"]
        products = row.get("products")
        share, allow = ("", "") if products is None else (f"{products['share']:.2f}", f"{products['allow']:.2f}×")
        lines.append(
            f"| {name} | {times['median']:.3f} s [{times['quartile_1']:.3f}, {times['quartile_3']:.3f}] | "
            f"{dense['denoising']['median'] / times['median']:.2f}× | {row['generation']['median']:.3f} s | "
            f"{share} | {allow} | {_psnr(row['psnr'], found)} | {row['ssim']:.4f} | {ours} |"
        )
    return "\n".join(lines)


def _psnr(value: float | None, found: Mapping[str, Any]) -> str:
    if value is None:
        return "same"
    return f"≥ {found['cap_db']:.0f} dB" if value >= found["cap_db"] else f"{value:.1f} dB"


def _ratio(match: Mapping[str, Any] | None) -> str:
    return "–" if match is None or match["ratio"] is None else f"{match['ratio']:.2f}×"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write here after every model; models not measured now are kept")
    parser.add_argument("--models", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of rounds per model, three rounds made")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    from f3prune.bench.quality_plot import save_plot
    from f3prune.core.quiet import silence

    silence(False)
    kept = json.loads(options.json.read_text(encoding="utf-8")) if options.json and options.json.exists() else {}
    models, seconds = dict(kept.get("models", {})), dict(kept.get("seconds", {}))
    before = environment()
    for name in options.models:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            models[name] = compare(SUBJECTS[name], Path(folder), options.budget)
        seconds[name] = round(time.monotonic() - started, 1)
        say(f"{name}: {seconds[name]} s; {models[name]['best_other']}")
        models = {known: models[known] for known in SUBJECTS if known in models}
        titles = {known: SUBJECTS[known].title for known in models}
        found = {"environment": before, "titles": titles, "seconds": seconds, "models": models}
        write(str(options.json) if options.json else None, found)
    save_plot({titles[name]: found for name, found in models.items()}, options.picture)


if __name__ == "__main__":
    main()
