"""What calibration costs over the generation it watches: exact, and estimated from n query tokens per frame.

``zoo:digits`` runs as its pipeline does, 16 steps with guidance; three denoisers alone run at one timestep: one of
CogVideoX's shape, one of Wan's, and one of Latte's, whose attention between frames is temporal. Contenders run in turn
in one process; peak memory is measured with a process for each. Beside the times stand what the estimate does to the
ranking of units: Spearman's correlation with the exact scores, and the units that it prunes in place of others.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _measure import environment, peak_of, write
from _shapes import cogvideox_config

MODELS = ("zoo:digits", "CogVideoX", "Wan", "Latte")
ALPHAS = (0.25, 0.5, 0.75)
NEAR_TIE = 0.01
"""Two units are a near-tie where their AAS differ by so much of the threshold unit's."""
ROUNDS = {"zoo:digits": 3, "CogVideoX": 3, "Wan": 3, "Latte": 5}
STEPS = 1


def subject(model: str) -> tuple[Any, Callable[[], None]]:
    """The denoiser, and a function that generates with it once."""
    import torch

    if model == "zoo:digits":
        from diffusers import DiffusionPipeline

        from f3prune import zoo

        pipeline = DiffusionPipeline.from_pretrained(zoo.path("digits"))
        pipeline.set_progress_bar_config(disable=True)

        def generate() -> None:
            pipeline(
                "a 7 moving left",
                num_inference_steps=16,
                guidance_scale=4.0,
                max_sequence_length=12,
                generator=torch.Generator("cpu").manual_seed(0),
                output_type="latent",
            )

        return pipeline.transformer, generate

    from f3prune.calibration import denoise_synthetic
    from f3prune.core.weights import randomize_weights
    from f3prune.families import LatentShape, family_of

    denoiser, shape = _denoiser(model)
    randomize_weights(denoiser, 0)
    denoiser.eval().requires_grad_(False)
    latent = LatentShape(*shape) if shape is not None else family_of(denoiser).default_shape(denoiser.config)
    return denoiser, lambda: denoise_synthetic(denoiser, latent, STEPS)


def _denoiser(model: str) -> tuple[Any, tuple[int, int, int] | None]:
    """A denoiser of some family's shape, and its latent frames, height and width (None: its default)."""
    import diffusers

    if model == "CogVideoX":
        return diffusers.CogVideoXTransformer3DModel(**cogvideox_config()), None
    if model == "Wan":
        return diffusers.WanTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=128,
            num_layers=4,
            ffn_dim=2048,
            text_dim=256,
            freq_dim=256,
            rope_max_seq_len=64,
        ), (9, 32, 32)
    return diffusers.LatteTransformer3DModel(
        num_attention_heads=6,
        attention_head_dim=64,
        num_layers=4,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=384,
        caption_channels=256,
        sample_size=32,
        patch_size=2,
        video_length=16,
        num_embeds_ada_norm=1000,
    ), (16, 32, 32)


def run_of(denoiser: Any, generate: Callable[[], None], contender: str) -> Any:
    """One generation: ``plain``, or calibrated ``exact`` or with a number of rows; returns the calibration."""
    import torch

    from f3prune.calibration import calibrate

    with torch.no_grad():
        if contender == "plain":
            return generate()
        return calibrate(denoiser, generate, rows=None if contender == "exact" else int(contender))


def measure(model: str, contenders: list[str]) -> dict[str, Any]:
    """Times in turn, memory in a process each, and what estimating does to the ranking."""
    denoiser, generate = subject(model)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    found = {}
    for number in range(ROUNDS[model] + 1):
        for name in contenders:
            start = time.perf_counter()
            found[name] = run_of(denoiser, generate, name)
            if number:
                seconds[name].append(time.perf_counter() - start)
    plain = seconds["plain"]
    result: dict[str, Any] = {}
    for name in contenders:
        ratios = [own / dense for own, dense in zip(seconds[name], plain, strict=True)]
        low, middle, high = statistics.quantiles(seconds[name], n=4)
        peak = peak_of([__file__, "--peak", model, name])
        result[name] = {
            "seconds": {"median": middle, "q1": low, "q3": high},
            "over_plain": statistics.median(ratios),
            "peak_gb": peak["peak_gb"],
            "peak_over_plain": peak["peak_gb"] / (result["plain"]["peak_gb"] if result else peak["peak_gb"]),
        }
        if name not in ("plain", "exact"):
            result[name]["ranking"] = compare(found["exact"], found[name])
    return result


def compare(exact: Any, estimate: Any) -> dict[str, Any]:
    """How an estimate ranks units, by granularity, against the exact scores."""
    from scipy.stats import spearmanr

    from f3prune.calibration.score_table import units
    from f3prune.calibration.scores import attention_scores

    ranking: dict[str, Any] = {}
    for granularity in ("layer", "head"):
        true, guessed = (
            [unit.score for unit in units(attention_scores(c, granularity), "timesteps", list(c.mass))]
            for c in (exact, estimate)
        )
        count = len(true)
        other, far = {}, {}
        for alpha in ALPHAS:
            cut = int(alpha * count)
            kept, wanted = (set(sorted(range(count), key=lambda i: (scores[i], i))[:cut]) for scores in (guessed, true))
            threshold = sorted(true)[max(0, cut - 1)]
            wrong = kept ^ wanted
            other[f"{alpha:g}"] = len(wrong) // 2
            far[f"{alpha:g}"] = sum(abs(true[i] - threshold) > NEAR_TIE * threshold for i in wrong)
        ranking[granularity] = {
            "units": count,
            "spearman": float(spearmanr(true, guessed).statistic),
            "spread": max(true) / min(true) - 1,
            "other_units": other,
            "not_near_ties": far,
        }
    return ranking


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Markdown: ``cost``, and ``ranking`` of the estimates."""
    cost = [
        "| model | calibration | median | over plain | peak memory | over plain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    ranking = [
        "| model | rows | Spearman layers / heads | spread of AAS layers / heads | other units at α 0.25, 0.5, 0.75: "
        "layers / heads | beyond near-ties |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for model, rows in result["models"].items():
        for name, row in rows.items():
            what = {"plain": "none", "exact": "exact"}.get(name, f"`--rows {name}`")
            cost.append(
                f"| {model} | {what} | {row['seconds']['median']:.2f} s | {row['over_plain']:.2f}× | "
                f"{row['peak_gb']:.2f} GB | {row['peak_over_plain']:.2f}× |"
            )
            if "ranking" in row:
                layer, head = row["ranking"]["layer"], row["ranking"]["head"]
                cells = [
                    f"{layer['spearman']:.4f} / {head['spearman']:.4f}",
                    f"{100 * layer['spread']:.1f} % / {100 * head['spread']:.1f} %",
                    " / ".join(", ".join(map(str, part["other_units"].values())) for part in (layer, head)),
                    " / ".join(", ".join(map(str, part["not_near_ties"].values())) for part in (layer, head)),
                ]
                ranking.append(f"| {model} | {name} | {' | '.join(cells)} |")
    return {"cost": "\n".join(cost), "ranking": "\n".join(ranking)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="the file keeps others")
    parser.add_argument("--rows", nargs="+", default=["8", "16"], help="query tokens per frame")
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "CONTENDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak is not None:
        model, contender = options.peak
        run_of(*subject(model), contender)
        # The kernel's own high-water mark, which no sampling misses.
        print(json.dumps({"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))
        return
    result: dict[str, Any] = {"models": {}}
    if options.json is not None and options.json.is_file():
        result = json.loads(options.json.read_text(encoding="utf-8"))
    for model in options.models:
        # At a temporal site a frame has one query token: there is nothing to sample.
        contenders = ["plain", "exact", *(options.rows if model != "Latte" else [])]
        result["environment"] = environment()
        result["models"][model] = measure(model, contenders)
        write(None if options.json is None else str(options.json), result)


if __name__ == "__main__":
    main()
