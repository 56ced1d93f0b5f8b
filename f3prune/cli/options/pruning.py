"""What goes, and what takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli.options.types import COUNT, Alpha, BoundedFloat, Mode, ModeList, stack
from f3prune.core.choices import AGGREGATES, DEFAULT, GRANULARITIES, score_names
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from f3prune.calibration import PruneConfig

REFIT_GENERATIONS = 8

PRUNING = stack(
    click.option(
        "--alpha",
        type=Alpha(0.0, 1.0, "a pruning ratio"),
        help="Pruning ratio: the share of units that goes, or with --mode auto the share of the sites' multiplications "
        "that is saved. `f3prune prune` also takes auto, with --budget. Required, unless --speedup is given.",
    ),
    click.option(
        "--granularity", type=click.Choice(GRANULARITIES), default="layer", show_default=True, help="What a unit is."
    ),
    click.option(
        "--aggregate",
        type=click.Choice(AGGREGATES),
        default="timesteps",
        show_default=True,
        help="Sum scores over timesteps, or also over layers, so that all layers share one mask.",
    ),
    click.option(
        "--mode",
        type=Mode(auto=True),
        help="What takes a pruned unit's place: attention to its own frame (local), to its own frame and those beside "
        "it (window), or to its own frame in full and all others in patches (pooled); the mean map of temporal "
        "attention (static); or nothing (drop). auto chooses one for every layer, or none, by what the output loses "
        "and what is saved. [default: static for temporal attention, local for joint attention and frame pairs]",
    ),
    click.option(
        "--speedup",
        type=BoundedFloat(1.0, meaning="a speed-up"),
        help="With --mode auto, in place of --alpha: by what factor the products of a call are to fall, e.g. 1.3.",
    ),
    click.option(
        "--candidates",
        type=ModeList(),
        default="",
        help="Modes that --mode auto chooses from, e.g. local,pooled:2:1. [default: all that suit the model]",
    ),
    click.option("--window", type=COUNT, help="Frames on each side that --mode window or pooled sees in full."),
    click.option("--pool", type=COUNT, help="Height and width of a patch of --mode pooled, in tokens."),
    click.option(
        "--score",
        type=click.Choice(score_names()),
        help="What units are ranked by; the least go. leave-one-out: what the output loses without the unit. greedy: "
        "the same again after every unit that went, N/2 times as slow for N units. aas: attention to other frames, "
        "which needs no further run of the model, nor do far-mass (to frames beyond a window) and map-variance (change "
        "of attention over timesteps). magnitude, random and reversed are baselines. [default: "
        "leave-one-out; aas for frame pairs]",
    ),
    click.option("--score-seed", type=click.IntRange(min=0), default=0, help="Seed of --score random."),
    click.option(
        "--refit",
        is_flag=True,
        help="Refit the output projections of pruned sites to what dense attention gives. It costs a few generations "
        "now and nothing at run time.",
    ),
    click.option(
        "--refit-generations",
        type=COUNT,
        metavar="N",
        help=f"With --refit: generations of the dense model to refit on. [default: {REFIT_GENERATIONS}]",
    ),
    click.option(
        "--stages",
        type=COUNT,
        default=1,
        show_default=True,
        help="Number of ranges of denoising steps, each with masks of its own.",
    ),
    click.option(
        "--protect", multiple=True, metavar="GLOB", help="Sites that are never pruned, by name; may be repeated."
    ),
)


def prune_config(values: Mapping[str, Any]) -> PruneConfig:
    """The pruning options of a command.

    Raises:
        InputError: two options that exclude each other.
    """
    check_pruning(values)
    from f3prune.calibration import PruneConfig, default_score
    from f3prune.calibration.replacements import replacement_of

    names = ("granularity", "aggregate", "speedup", "candidates", "stages", "protect", "score_seed")
    score = values["score"] or default_score(values["granularity"])
    mode = values["mode"] or DEFAULT
    if mode not in ("auto", DEFAULT):
        mode = replacement_of(mode, window=values["window"], pool=values["pool"]).spec
    refit = (values["refit_generations"] or REFIT_GENERATIONS) if values["refit"] else 0
    config = {name: values[name] for name in names}
    return PruneConfig(values["alpha"] or 0.0, mode=mode, score=score, refit=refit, **config)


def check_pruning(values: Mapping[str, Any]) -> None:
    """Refuse combinations of pruning options before any work is done.

    Raises:
        InputError: two options that exclude each other.
    """
    if values["alpha"] == "auto":
        raise InputError(
            "--alpha auto judges videos: calibrate first, then `f3prune prune RUN --alpha auto --budget …`"
        )
    if values["alpha"] is None and values["speedup"] is None:
        raise click.UsageError("Missing option '--alpha'.")
    if values["alpha"] is not None and values["speedup"] is not None:
        raise InputError("--speedup takes the place of --alpha: give one of them")
    if values["speedup"] is not None and values["mode"] != "auto":
        raise InputError(
            f"--speedup is for --mode auto, not {values['mode'] or 'the default'}: leave it out, or use --mode auto"
        )
    if values["mode"] is None and (values["window"] or values["pool"]):
        option = "--window" if values["window"] else "--pool"
        raise InputError(f"{option} says how a mode works: give the mode too, e.g. --mode pooled")
    if values["mode"] == "auto" and (values["window"] or values["pool"]):
        raise InputError("--mode auto chooses windows and patches itself: leave --window and --pool out")
    if values["granularity"] == "layer" and values["aggregate"] == "layers":
        raise InputError(
            "--aggregate layers makes all sites share one mask and has no meaning with --granularity layer: "
            "use --granularity head or frame-pair, or --aggregate timesteps"
        )
    if values["refit_generations"] and not values["refit"]:
        raise InputError("--refit-generations is for --refit: give both, or leave it out")
    if values["refit"] and values["granularity"] == "frame-pair":
        raise InputError("--refit is for layers and heads: leave it out, or use --granularity layer or head")
    if values["granularity"] == "frame-pair" and values["mode"] not in (None, "local"):
        raise InputError(
            f"--mode {values['mode']} takes the place of whole heads and has no meaning with --granularity frame-pair: "
            "use --mode local, or --granularity layer or head"
        )
