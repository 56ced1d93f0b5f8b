"""The study behind docs/fidelity.md: what each way of choosing what to prune does to trained models.

Every part can be run by itself, goes on where it was interrupted, and adds its rows to the JSON file.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from f3prune import zoo
from f3prune.bench.contest.sweep import masks_key
from f3prune.bench.speed import BenchOptions, alternate, summary
from f3prune.calibration import Calibration, Masks, PruneConfig, prune_denoiser, rank_units, save_pruned
from f3prune.calibration.auto import candidates, count_pruned, everywhere
from f3prune.calibration.score_table import Unit, units
from f3prune.calibration.scores import attention_scores
from f3prune.core.atomic_files import atomic_write
from f3prune.core.errors import InputError
from f3prune.core.progress import Reporter, RichReporter
from f3prune.core.run_directory import RunDirectory
from f3prune.engines import BuildConfig
from f3prune.exporter import ExportConfig
from f3prune.families import family_of
from f3prune.pipelines.loading import load_denoiser
from f3prune.pipelines.pipeline_runs import GenerationSettings
from f3prune.quality.compare import Measured, compare
from f3prune.quality.judging import ZOO_SEED, JudgeOptions, Judging
from f3prune.quality.pool import measure_many
from f3prune.quality.statistics import paired_test
from f3prune.quality.sweep import DENSE, SweepOptions, latencies
from f3prune.steps._state import RunState
from f3prune.steps.build import build
from f3prune.steps.calibrate import AAS, CalibrateOptions, calibrate
from f3prune.steps.export import export
from f3prune.steps.prune import counts, prune
from f3prune.steps.scores import masks_of, recorded_calls, score_table

MODELS = tuple(
    name for name in ("digits-latte", "digits-cogvideo", "digits", "digits-animatediff") if name in zoo.names()
)
METRICS = ("psnr", "flicker", "dynamic", "prompt_digit", "prompt_motion", "fvd")
RANDOM_SEEDS = SEEDS = (0, 1, 2)
SEED_SPACING = 1000
"""Between the first videos of two seeds; more than there are videos of each."""
SCORES = ("aas", "leave-one-out", "greedy", "magnitude", "reversed")
ROUNDS = 30
SAVED_BY_AUTO = {0.35: 0.25, 0.5: 0.5, 0.75: 0.75, 1.0: 0.9}
"""The share of attention products that mode auto saves, by the share of layers of the row it stands beside."""
AUTO_TAKES = ("layer", "leave-one-out")
FREE = ("aas", "far-mass", "map-variance")
"""Scores that calibration alone gives."""
SERIOUS = ("aas", "leave-one-out", "greedy")


@dataclass(frozen=True)
class Part:
    """One question: the configurations that answer it."""

    name: str
    configs: tuple[PruneConfig, ...]


def parts(frame_pairs: bool) -> list[Part]:
    """The questions that videos answer; a model that generates token by token has no pairs and no stages."""
    selection = []
    for granularity, alpha in (("layer", 0.35), ("layer", 0.5), ("head", 0.5)):
        selection += [PruneConfig(alpha, granularity, mode="local", score=score) for score in SCORES]  # type: ignore[arg-type]
        for seed in RANDOM_SEEDS:
            selection.append(PruneConfig(alpha, granularity, mode="local", score="random", score_seed=seed))  # type: ignore[arg-type]
    mode = [
        PruneConfig(0.5, granularity, mode="drop", score=score)  # type: ignore[arg-type]
        for granularity in ("layer", "head")
        for score in SERIOUS
    ]
    found = [Part("selection", tuple(selection)), Part("mode", tuple(mode))]
    if not frame_pairs:
        return found
    pairs = [PruneConfig(0.5, "frame-pair", score=score) for score in ("aas", "leave-one-out", "reversed", "random")]  # type: ignore[arg-type]
    stages = [PruneConfig(0.5, mode="local", stages=k, score=score) for k in (2, 4) for score in SERIOUS]  # type: ignore[arg-type]
    return [*found, Part("pairs", tuple(pairs)), Part("stages", tuple(stages))]


def replacements(state: RunState, chosen: argparse.Namespace) -> list[PruneConfig]:
    """Everything that can take a layer's place, by ratio; and mode auto, by the share of products that it saves."""
    found = Calibration.load(state.run.path / AAS)
    offered = candidates(found, PruneConfig(0.5, mode="auto")).values()
    modes = chosen.modes or [*dict.fromkeys(o.spec for one in offered for o in one), "auto"]
    return [
        PruneConfig(SAVED_BY_AUTO[alpha] if mode == "auto" else alpha, unit, mode=mode, refit=refit, score=score)
        for unit, score in itertools.product(chosen.units, chosen.ranked_by)
        for refit in chosen.refits
        for alpha in chosen.alphas
        for mode in modes
        if mode != "auto" or (unit, score) == AUTO_TAKES
    ]


def judged_by_replacement(state: RunState, model: str, options: argparse.Namespace, reporter: Reporter) -> None:
    """Few configurations at a time: each row is written down as soon as it is measured, and not measured again."""
    judging = Judging(state, JudgeOptions(samples=options.samples, metrics=METRICS), reporter)
    for config in replacements(state, options):
        data = json.loads(options.json.read_text(encoding="utf-8")) if options.json.is_file() else {}
        rows = data.get(model, {}).get("replacements", [])
        if any(row["config"] == json_of(config) for row in rows):
            continue
        try:
            rows += rows_of(judging, [config], [masks_of(state, config, reporter)], options.jobs, reporter)
        except InputError as error:
            rows.append({"config": json_of(config), "refused": str(error)})
        note(options.json, model, "replacements", rows)


def judged(
    state: RunState, configs: Sequence[PruneConfig], samples: int, jobs: int, reporter: Reporter
) -> list[dict[str, Any]]:
    """Every configuration, measured beside the dense model on the same prompts and seeds."""
    judging = Judging(state, JudgeOptions(samples=samples, metrics=METRICS), reporter)
    return rows_of(judging, configs, [masks_of(state, config, reporter) for config in configs], jobs, reporter)


def rows_of(
    judging: Judging, configs: Sequence[PruneConfig], masks: Sequence[Masks], jobs: int, reporter: Reporter
) -> list[dict[str, Any]]:
    """What each configuration, which chose these masks, does to quality."""
    measured = measure_many(judging, masks, jobs, reporter)
    dense, real = judging.dense("torch"), judging.real()
    return [row_of(*one, dense, real) for one in zip(configs, masks, measured, strict=True)]


def row_of(
    config: PruneConfig, masks: Masks, measured: Measured, dense: Measured, real: Measured | None
) -> dict[str, Any]:
    """One configuration beside the dense model."""
    found, stages = compare(dense, measured, real), counts(masks)
    return {
        "config": json_of(config),
        "masks": masks_key(masks),
        "pruned": {name: sum(stage[name] for stage in stages) for name in stages[0]},
        "sites": [[n for n, m in stage.sites.items() if not m.untouched] for stage in masks.stages],
        "quality": found["pruned"],
        "difference": found["difference"],
        "dense": found["dense"],
        "psnr": [round(float(value), 3) for value in measured.values["psnr"]],
    }


def joined(parts: Sequence[Measured]) -> Measured:
    """The measurements of several sets of videos as those of one."""
    first = parts[0]
    return Measured(
        first.info,
        [prompt for part in parts for prompt in part.prompts],
        {name: np.concatenate([part.values[name] for part in parts]) for name in first.values},
        {name: np.concatenate([part.features[name] for part in parts]) for name in first.features},
    )


def seeds_configs() -> tuple[PruneConfig, ...]:
    """What is chosen from every seed's calibration."""
    found = []
    for alpha in (0.35, 0.5):
        found += [PruneConfig(alpha, mode="local", score=score) for score in SERIOUS]  # type: ignore[arg-type]
        found.append(PruneConfig(alpha, mode="drop", score="leave-one-out"))
    return tuple(found)


def over_seeds(
    state: RunState,
    model: str,
    configs: Sequence[PruneConfig],
    home: Path,
    samples: int,
    jobs: int,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """Calibrated from other noise, judged on other videos: do the choice and what it does stay the same?"""
    rows, chosen, denses, measured = [], [], [], []
    for seed in SEEDS:
        run = RunDirectory.create(home / f"{model}-seed-{seed}")
        calibrate(run, CalibrateOptions(f"zoo:{model}", settings=GenerationSettings(seed=seed)), reporter)
        own = RunState.of(run)
        judging = Judging(
            state, JudgeOptions(samples=samples, metrics=METRICS, seed=ZOO_SEED + seed * SEED_SPACING), reporter
        )
        chosen.append([masks_of(own, config, reporter) for config in configs])
        measured.append(measure_many(judging, chosen[-1], jobs, reporter))
        denses.append(judging.dense("torch"))
        real = judging.real()
        found = zip(configs, chosen[-1], measured[-1], strict=True)
        rows += [{"seed": seed, **row_of(*one, denses[-1], real)} for one in found]
    dense = joined(denses)
    for k, config in enumerate(configs):
        rows.append({"seed": "all", **row_of(config, chosen[0][k], joined([one[k] for one in measured]), dense, real)})
    return rows


def against_random(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """PSNR of every measure against the mean of random selection: the gain, and p of a paired test over samples."""
    found = []
    for granularity, alpha in dict.fromkeys((r["config"]["granularity"], r["config"]["alpha"]) for r in rows):
        here = [r for r in rows if (r["config"]["granularity"], r["config"]["alpha"]) == (granularity, alpha)]
        luck = np.mean([r["psnr"] for r in here if r["config"]["score"] == "random"], axis=0)
        for row in here:
            if row["config"]["score"] != "random":
                values = np.asarray(row["psnr"])
                gain, p = float((values - luck).mean()), paired_test(luck, values)
                found.append(
                    {"granularity": granularity, "alpha": alpha, "score": row["config"]["score"], "gain": gain, "p": p}
                )
    return found


def speeds(state: RunState, reporter: Reporter) -> list[dict[str, Any]]:
    """Latency of engines beside the dense one's, all in turn: half and a third of layers and heads, in both modes."""
    run = state.run
    configs = [
        PruneConfig(alpha, granularity, mode=mode, score="aas")  # type: ignore[arg-type]
        for granularity in ("layer", "head")
        for alpha in (0.35, 0.5)
        for mode in ("local", "drop")
    ]
    prune(run, configs[0], reporter)
    export(run, reporter=reporter)
    build(run, reporter=reporter)
    seconds = latencies(RunState.of(run), configs, SweepOptions(rounds=30), reporter)
    dense = seconds[DENSE]
    return [
        {"config": asdict(config), "seconds": seconds[str(k)], "speedup": dense["median"] / seconds[str(k)]["median"]}
        for k, config in enumerate(configs)
    ]


def replacement_speeds(state: RunState, rows: Sequence[Mapping[str, Any]], reporter: Reporter) -> list[dict[str, Any]]:
    """Latency of the engine of every measured row beside the dense one's, all in turn, and what it saves."""
    measured = [config_of(row["config"]) for row in rows if "quality" in row]
    # A refit changes no graph, but what mode auto chooses.
    configs = list(dict.fromkeys(c if c.mode == "auto" else replace(c, refit=0) for c in measured))
    masks = [replace(masks_of(state, config, reporter), refit="") for config in configs]
    dense = masks_of(state, PruneConfig(0.0, mode="local"), reporter)
    calls, strategy = state.calls(), state.strategy
    call = calls[len(calls) // 2]
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        contestants: dict[str, Any] = {}
        with reporter.task("building engines", total=len(configs) + 1) as advance:
            for name, chosen in [(DENSE, dense), *((str(k), one) for k, one in enumerate(masks))]:
                home = Path(folder) / name
                (home / "onnx").mkdir(parents=True)
                model = prune_denoiser(load_denoiser(state.source, torch.float32), chosen)
                save_pruned(model, home / "pruned")
                strategy.export(model, calls, state.source, home / "onnx", ExportConfig(self_test=False), {})
                settings = BuildConfig(cache=False)
                strategy.build(
                    home / "onnx", home / "engine", home / "pruned", settings, chosen.digest, lambda *_: None
                )
                engine = stack.enter_context(strategy.open_engine([home / "engine"], home / "pruned", chosen))
                contestants[name] = strategy.timed(engine, call)
                advance()
        inputs = {**call.on(cpu, torch.float32), **strategy.forward_arguments}
        timing = BenchOptions(rounds=ROUNDS, budget_s=600.0)
        with reporter.task("measuring engines", total=timing.rounds + timing.warm_up) as advance:
            seconds = {k: summary(v) for k, v in alternate(contestants, inputs, timing, cpu, advance).items()}
    saved = saved_products(state, masks)
    return [
        {
            "config": json_of(config),
            "seconds": seconds[str(k)],
            "speedup": seconds[DENSE]["median"] / seconds[str(k)]["median"],
            "saved": saved[k],
        }
        for k, config in enumerate(configs)
    ]


def saved_products(state: RunState, chosen: Sequence[Masks]) -> list[float | None]:
    """The share of all that is multiplied at the sites that each of the masks saves; not of CogVideo, which caches."""
    if not state.strategy.has_steps:
        return [None] * len(chosen)
    found = Calibration.load(state.run.path / AAS)
    denoiser = load_denoiser(state.source, torch.float32, lazy=True)
    sites = [site for site in family_of(denoiser).find_sites(denoiser, "all") if site.name in found.sites]
    _, inputs = recorded_calls(state, found, torch.device("cpu"), torch.float32)[0]
    settings: Any = denoiser.config

    def at_sites(masks: Masks) -> float:
        counted = count_pruned(type(denoiser).__name__, settings, masks, inputs, sites)
        return float(sum(one.total for one in counted.sites.values()))

    dense = at_sites(everywhere(found, None))
    return [1 - at_sites(masks) / dense for masks in chosen]


def config_of(values: Mapping[str, Any]) -> PruneConfig:
    """Inverse of ``json_of``."""
    return PruneConfig(**{**values, "protect": tuple(values["protect"]), "candidates": tuple(values["candidates"])})


def rankings(model: str, home: Path, reporter: Reporter) -> list[dict[str, Any]]:
    """Spearman's correlation of AAS from few prompts and steps with AAS from all."""
    from scipy.stats import spearmanr

    def scores(prompts: int, steps: int | None) -> dict[str, list[float]]:
        run = RunDirectory.create(home / f"{model}-{prompts}-{steps or 'all'}")
        calibrate(
            run,
            CalibrateOptions(f"zoo:{model}", num_prompts=prompts, settings=GenerationSettings(steps=steps)),
            reporter,
        )
        found = Calibration.load(run.path / AAS)
        tables = {g: attention_scores(found, g) for g in ("layer", "head")}  # type: ignore[arg-type]
        return {g: [unit.score for unit in units(t, "timesteps", list(found.sites))] for g, t in tables.items()}

    full = scores(8, None)
    cases: list[tuple[int, int | None]] = [(1, None), (2, None), (4, None)]
    if "cogvideo" not in model:
        cases += [(1, 2), (1, 4), (4, 4), (4, 8)]
    rows = []
    for prompts, steps in cases:
        few = scores(prompts, steps)
        ranks = {g: float(spearmanr(full[g], few[g]).statistic) for g in full}
        rows.append({"prompts": prompts, "steps": steps, "spearman": ranks})
    return rows


def agreement(state: RunState, reporter: Reporter) -> list[dict[str, Any]]:
    """Spearman's correlation, over layers and heads, of free scores with what replacing each does to the output."""
    from scipy.stats import spearmanr

    found = Calibration.load(state.run.path / AAS)
    offered = candidates(found, PruneConfig(0.5, mode="auto")).values()
    modes = dict.fromkeys(o.spec for one in offered for o in one)
    rows = []
    for granularity, mode in itertools.product(("layer", "head"), modes):
        config = PruneConfig(0.5, granularity, mode=mode, score="leave-one-out")  # type: ignore[arg-type]
        errors = units(score_table(state, found, config, reporter), "timesteps", list(found.sites))
        for score in FREE:
            free = select_table(found, replace(config, score=score))
            if len({unit.score for unit in free}) == 1:
                # CogVideo's calibration has one timestep, over which no map changes.
                continue
            rank = spearmanr([unit.score for unit in free], [unit.score for unit in errors])
            rows.append(
                {
                    "granularity": granularity,
                    "mode": mode,
                    "score": score,
                    "units": len(free),
                    "spearman": float(rank.statistic),
                    "p": float(rank.pvalue),
                }
            )
    return rows


def select_table(found: Calibration, config: PruneConfig) -> list[Unit]:
    """Units with a score that calibration alone gives."""
    return units(rank_units(nn.Identity(), found, config), "timesteps", list(found.sites))


def study(model: str, chosen: set[str], options: argparse.Namespace, reporter: Reporter) -> None:
    """All chosen parts of one model; each is written down as soon as it is done."""
    home: Path = options.runs
    home.mkdir(parents=True, exist_ok=True)
    scores = set(options.scores)
    run = RunDirectory.create(home / model)
    calibrate(run, CalibrateOptions(f"zoo:{model}"), reporter)
    note(options.json, model, "facts", {"samples": options.samples, "torch": torch.__version__})
    state = RunState.of(run)
    for part in parts(state.strategy.frame_pairs):
        configs = [config for config in part.configs if config.score in scores]
        if part.name in chosen and configs:
            rows = judged(state, configs, options.samples, options.jobs, reporter)
            rows = add_rows(options.json, model, part.name, rows, part.configs)
            if part.name == "selection" and any(row["config"]["score"] == "random" for row in rows):
                note(options.json, model, "against_random", against_random(rows))
    if "replacements" in chosen:
        judged_by_replacement(state, model, options, reporter)
    configs = [config for config in seeds_configs() if config.score in scores]
    if "seeds" in chosen and configs:
        rows = over_seeds(state, model, configs, home, options.samples, options.jobs, reporter)
        add_rows(options.json, model, "seeds", rows, seeds_configs())
    if "speed" in chosen:
        note(options.json, model, "speed", speeds(state, reporter))
    if "replacement_speed" in chosen:
        data = json.loads(options.json.read_text(encoding="utf-8"))
        rows = data.get(model, {}).get("replacements", ())
        if rows:
            note(options.json, model, "replacement_speed", replacement_speeds(state, rows, reporter))
    if "agreement" in chosen:
        note(options.json, model, "agreement", agreement(state, reporter))
    if "calibration" in chosen:
        note(options.json, model, "calibration", rankings(model, home, reporter))


def add_rows(
    path: Path, model: str, part: str, rows: list[dict[str, Any]], configs: Sequence[PruneConfig]
) -> list[dict[str, Any]]:
    """Put rows in place of those of the same scores; the rows of other scores stay. All, in the part's own order."""
    measured = {row["config"]["score"] for row in rows}
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = [row for row in data.get(model, {}).get(part, ()) if row["config"]["score"] not in measured]
    order = [json_of(config) for config in configs]
    found = sorted([*kept, *rows], key=lambda row: (str(row.get("seed", "")), order.index(row["config"])))
    note(path, model, part, found)
    return found


def json_of(config: PruneConfig) -> dict[str, Any]:
    """A configuration as the file has it."""
    return {**asdict(config), "protect": list(config.protect), "candidates": list(config.candidates)}


def note(path: Path, model: str, part: str, rows: Any) -> None:
    """Put one part's rows into the JSON file, in place of what it held of them."""
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    data.setdefault(model, {})[part] = rows
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    names: tuple[str, ...] = ("selection", "mode", "replacements", "pairs", "stages", "seeds", "agreement", "speed")
    names = (*names, "calibration", "replacement_speed")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--scores", nargs="+", choices=(*SCORES, "random"), default=(*SCORES, "random"))
    parser.add_argument("--alphas", nargs="+", type=float, choices=SAVED_BY_AUTO, default=(0.5, 1.0, 0.75, 0.35))
    parser.add_argument("--units", nargs="+", choices=("layer", "head"), default=("layer",), help="of replacements")
    parser.add_argument("--ranked-by", nargs="+", choices=SERIOUS, default=("leave-one-out",), help="of replacements")
    parser.add_argument("--refits", nargs="+", type=int, default=(0, 8), help="generations that replacements refit on")
    parser.add_argument("--modes", nargs="+", help="of replacements; all that a model takes if left out")
    parser.add_argument("--samples", type=int, default=40, help="videos of every configuration")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worker processes")
    parser.add_argument("--runs", type=Path, default=Path("runs/study"), help="where runs and videos are kept")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/study.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # two threads are slower than one on models so small
    with RichReporter() as reporter:
        for model in options.models:
            study(model, set(options.parts), options, reporter)


if __name__ == "__main__":
    main()
