"""Writes docs/fidelity.md from the study's results: every number and every verdict comes from the JSON file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import replacement_page
from replacement_page import agreement_section, replacement_section, speed
from study_tables import KINDS, SCORES, SIGNIFICANT, Row, change, keeps_quality, number, table

HOME = Path(__file__).parent
LEAST_ALPHA = 0.3


def quality_table(rows: Sequence[Row]) -> str:
    """A row per configuration, beside the dense model."""
    dense = rows[0]["dense"]
    header = ("α", "unit", "mode", "stages", "chosen by", "PSNR, dB", "digit, %", "motion, %", "dynamic", "FVD")
    first = (
        "0",
        "",
        "",
        "",
        "dense",
        "",
        f"{100 * dense['prompt_digit']['value']:.0f}",
        f"{100 * dense['prompt_motion']['value']:.0f}",
        f"{dense['dynamic']['value']:.2f}",
        f"{dense['fvd']['value']:.1f}",
    )
    body = [first]
    for row in rows:
        config = row["config"]
        seed = f" {config['score_seed']}" if config["score"] == "random" else ""
        body.append(
            (
                f"{config['alpha']:g}",
                config["granularity"],
                config["mode"],
                str(config["stages"]),
                SCORES[config["score"]] + seed,
                number(row["quality"]["psnr"], 1),
                change(row, "prompt_digit", 0, 100),
                change(row, "prompt_motion", 0, 100),
                change(row, "dynamic", 2),
                change(row, "fvd", 1),
            )
        )
    return table(header, body)


def random_table(rows: Sequence[Row]) -> str:
    """PSNR gained over random selection, and p."""
    return table(
        ("unit", "α", "chosen by", "PSNR over random, dB", "p"),
        ((r["granularity"], f"{r['alpha']:g}", SCORES[r["score"]], f"{r['gain']:+.1f}", f"{r['p']:.1g}") for r in rows),
    )


def is_contradicted(model: Row, config: Row) -> bool:
    """The videos of all seeds together say that this configuration loses quality, whatever those of one seed say."""
    return any(
        row["seed"] == "all" and row["config"] == config and not keeps_quality(row) for row in model.get("seeds", ())
    )


def stays_good(model: Row, row: Row) -> bool:
    """No interval says that quality is lost, neither of these videos nor of those of all seeds together."""
    return keeps_quality(row) and not is_contradicted(model, row["config"])


def seeds_table(rows: Sequence[Row]) -> str:
    """The same selection from three calibrations, each judged on videos of its own."""

    def kind(row: Row) -> tuple[Any, ...]:
        return tuple(row["config"][name] for name in ("alpha", "mode", "score"))

    first = {kind(row): row["sites"] for row in rows if row["seed"] == rows[0]["seed"]}
    body = []
    each = [row for row in rows if row["seed"] != "all"]
    order = list(SCORES)
    for row in sorted(
        each,
        key=lambda r: (
            r["config"]["alpha"],
            r["config"]["mode"] == "drop",
            order.index(r["config"]["score"]),
            r["seed"],
        ),
    ):
        config = row["config"]
        same = row["sites"] == first[kind(row)]
        body.append(
            (
                f"{config['alpha']:g}",
                config["mode"],
                SCORES[config["score"]],
                str(row["seed"]),
                "same" if same else "others",
                number(row["quality"]["psnr"], 1),
                change(row, "prompt_digit", 0, 100),
                change(row, "prompt_motion", 0, 100),
                number(row["difference"]["fvd"], 1),
            )
        )
    header = (
        "α",
        "mode",
        "chosen by",
        "seed",
        "layers as seed 0's",
        "PSNR, dB",
        "digit, %",
        "motion, %",
        "FVD, pruned - dense",
    )
    return table(header, body)


def seeds_kept(data: Mapping[str, Any]) -> str:
    """All seeds together, per model, ratio and score: the differences to the dense model."""
    rows = []
    for name, model in data.items():
        for row in model.get("seeds", ()):
            if row["seed"] == "all":
                apart = row["difference"]
                rows.append(
                    (
                        f"zoo:{name}",
                        f"{row['config']['alpha']:g}",
                        row["config"]["mode"],
                        SCORES[row["config"]["score"]],
                        f"{row['quality']['psnr']['value']:.1f}",
                        number(apart["prompt_digit"], 1, 100),
                        number(apart["prompt_motion"], 1, 100),
                        number(apart["fvd"], 1),
                        "yes" if keeps_quality(row) else "no",
                        speed_of(model, row["config"]),
                    )
                )
    if not rows:
        return ""
    videos = ", ".join(sorted({str(3 * model["facts"]["samples"]) for model in data.values() if model.get("seeds")}))
    header = (
        "model",
        "α",
        "mode",
        "chosen by",
        "PSNR, dB",
        "digit, % points",
        "motion, % points",
        "FVD",
        "kept",
        "engine speed",
    )
    return (
        "Three calibrations, each with noise of its own, chose layers; each choice was judged on videos of its own. "
        f"All {videos} videos together, pruned minus dense; *kept* is quality kept as above:\n\n" + table(header, rows)
    )


def speedup(model: Row, config: Row) -> float | None:
    """Measured speed of an engine that prunes as many units of that kind in that mode, over the dense engine's."""
    if (found := speed(model, config)) is not None:
        return found
    for row in model.get("speed", ()):
        own = row["config"]
        if all(own[name] == config[name] for name in ("alpha", "granularity", "mode")) and config["stages"] == 1:
            return float(row["speedup"])
    return None


def speed_of(model: Row, config: Row) -> str:
    """``speedup`` in words."""
    found = speedup(model, config)
    return "not measured" if found is None else f"{found:.2f}×"


def videos_of(model: Row) -> list[Row]:
    """All configurations of a model."""
    found = [row for part in ("selection", "mode", "pairs", "stages") for row in model.get(part, ())]
    return [*(row for row in model.get("replacements", ()) if "quality" in row), *found]


def is_chosen_on_purpose(row: Row) -> bool:
    """Neither a lucky draw, nor a score turned upside down, nor stages that all chose the same."""
    if row["config"]["stages"] > 1 and all(sites == row["sites"][0] for sites in row["sites"]):
        return False
    return row["config"]["score"] not in ("random", "reversed")


def distinct(rows: Iterable[Row]) -> list[tuple[Row, str]]:
    """One row of those that prune the same, that of the score which is named first, and all their scores."""
    found: dict[str, tuple[Row, list[str]]] = {}
    for row in rows:
        found.setdefault(row["masks"], (row, []))[1].append(SCORES[row["config"]["score"]])
    return [(row, ", ".join(dict.fromkeys(scores))) for row, scores in found.values()]


def verdicts(data: Mapping[str, Any]) -> str:
    """Which configurations keep quality, and what AAS is worth against chance."""
    rows = []
    for name, model in data.items():
        for row, scores in distinct(row for row in videos_of(model) if is_chosen_on_purpose(row)):
            config = row["config"]
            if config["alpha"] >= LEAST_ALPHA and stays_good(model, row):
                rows.append(
                    (
                        f"zoo:{name}",
                        f"{config['alpha']:g}",
                        config["granularity"],
                        config["mode"] + (", refit" if config["refit"] else ""),
                        str(config["stages"]),
                        scores,
                        number(row["difference"]["fvd"], 1),
                        f"{row['quality']['psnr']['value']:.1f}",
                        speed_of(model, config),
                    )
                )
    header = ("model", "α", "unit", "mode", "stages", "chosen by", "FVD, pruned - dense", "PSNR, dB", "engine speed")
    parts = [
        "## Pruned without loss\n",
        f"These configurations of α ≥ {LEAST_ALPHA:g} keep quality: no interval says that fewer digits or motions are "
        "right, or that FVD is higher (a difference below zero is a lower FVD). That holds over the videos of one seed "
        "and, where measured, over those of all seeds below. Random and reversed selections are left out, and so are "
        "stages that all chose the same layers.\n",
        table(header, rows) if rows else "None.\n",
        seeds_kept(data),
        "## Does the score tell what to prune?\n",
    ]
    for score in ("aas", "leave-one-out", "greedy", "magnitude", "reversed"):
        found = [
            (name, row)
            for name, model in data.items()
            for row in model.get("against_random", ())
            if row["score"] == score
        ]
        if not found:
            continue
        won = [1 for _, row in found if row["gain"] > 0 and row["p"] < SIGNIFICANT]
        lost = [1 for _, row in found if row["gain"] < 0 and row["p"] < SIGNIFICANT]
        parts.append(
            f"- **{SCORES[score]}** has a better PSNR than random selection (p < {SIGNIFICANT:g}) in {len(won)} of "
            f"{len(found)} cases (model × unit × α), and a worse one in {len(lost)}.\n"
        )
    return "\n".join([*parts, agreement_section(data)])


def fastest_kept(model: Row) -> Row | None:
    """The configuration of the fastest engine that keeps quality, if one that does is faster than the dense engine."""
    kept = [
        row
        for row, _ in distinct(row for row in videos_of(model) if is_chosen_on_purpose(row))
        if stays_good(model, row) and (speedup(model, row["config"]) or 0.0) > 1.0
    ]
    return max(
        kept,
        key=lambda row: (speedup(model, row["config"]) or 0.0, row["quality"]["psnr"]["value"]),
        default=None,
    )


def tables(data: Mapping[str, Any]) -> dict[str, str]:
    """Markdown for other pages: ``short`` has each model's largest ratio at which defaults, or greedy, lose nothing."""
    rows = []
    for name in KINDS:
        model, shown = data.get(name, {}), []
        for score in ("leave-one-out", "greedy"):
            row = _largest_kept(model, score)
            if row is not None and row["sites"] not in shown:
                shown.append(row["sites"])
                apart = row["difference"]
                rows.append(
                    (
                        f"zoo:{name}",
                        SCORES[score],
                        f"{row['config']['alpha']:g}",
                        number(apart["prompt_digit"], 1, 100),
                        number(apart["prompt_motion"], 1, 100),
                        number(apart["fvd"], 1),
                        number(row["quality"]["psnr"], 1),
                        speed_of(model, row["config"]),
                    )
                )
    header = ("model", "chosen by", "α", "digit, % points", "motion, % points", "FVD", "PSNR, dB", "engine")
    return {"short": table(header, rows), "replacements": replacement_page.fastest_kept(data)}


def _largest_kept(model: Row, score: str) -> Row | None:
    """Of all seeds together, the row of the largest ratio that keeps quality."""
    kept = [
        row
        for row in model.get("seeds", ())
        if row["seed"] == "all"
        and (row["config"]["score"], row["config"]["mode"]) == (score, "local")
        and keeps_quality(row)
    ]
    return max(kept, key=lambda one: one["config"]["alpha"], default=None)


def recommended(data: Mapping[str, Any]) -> str:
    """For every kind of model what stays nearest to the dense one at each α, and the fastest that keeps quality."""
    rows = []
    for name, model in data.items():
        serious = [row for row, _ in distinct(row for row in videos_of(model) if is_chosen_on_purpose(row))]
        for alpha in sorted({row["config"]["alpha"] for row in serious}):
            here = [row for row in serious if row["config"]["alpha"] == alpha]
            layers = [row for row in here if row["config"]["granularity"] == "layer"]
            nearest, nearest_layers = (
                max(some, key=lambda row: row["quality"]["psnr"]["value"]) for some in (here, layers)
            )
            rows.append(_recommendation(name, model, "nearest to dense, layers", nearest_layers))
            if nearest is not nearest_layers:
                rows.append(_recommendation(name, model, "nearest to dense", nearest))
        fastest = fastest_kept(model)
        if fastest is not None:
            rows.append(_recommendation(name, model, "fastest that keeps quality", fastest))
    header = ("kind of model", "to be", "α", "settings", "PSNR, dB", "digit, %", "motion, %", "FVD", "kept", "speed")
    defaults = (
        "The defaults of `f3prune prune` are `--granularity layer --score leave-one-out --stages 1` (`--score aas` "
        "for frame pairs), and mode `static` for temporal attention, `local` for everything else. These settings were "
        "measured to be best; *kept* is quality kept as above:\n\n"
    )
    return defaults + table(header, rows)


def _recommendation(name: str, model: Row, what: str, row: Row) -> tuple[str, ...]:
    config = row["config"]
    return (
        KINDS[name],
        what,
        f"{config['alpha']:g}",
        f"`--granularity {config['granularity']} --score {config['score']} --mode {config['mode']} "
        f"--stages {config['stages']}{' --refit' if config['refit'] else ''}`",
        number(row["quality"]["psnr"], 1),
        change(row, "prompt_digit", 0, 100),
        change(row, "prompt_motion", 0, 100),
        change(row, "fvd", 1),
        "yes" if stays_good(model, row) else "no",
        speed_of(model, config),
    )


def model_section(name: str, model: Row) -> str:
    """Everything that was measured on one model."""
    samples = model["facts"]["samples"]
    parts = [f"## zoo:{name}\n", f"{KINDS[name][0].upper()}{KINDS[name][1:]}; each row has {samples} videos.\n"]
    for part, title in (
        ("selection", "What to prune"),
        ("mode", "What takes a pruned unit's place: drop"),
        ("pairs", "Frame pairs"),
        ("stages", "Masks of their own for 2 and 4 ranges of steps"),
    ):
        if model.get(part):
            parts += [f"### {title}\n", quality_table(model[part])]
        if part == "stages" and model.get(part):
            rows = model[part]
            same = sum(all(sites == row["sites"][0] for sites in row["sites"]) for row in rows)
            told = "rows all ranges chose the same layers, so that one mask prunes the same"
            parts += [f"In {same} of {len(rows)} {told}.\n"]
        if part == "selection" and model.get("against_random"):
            told = "PSNR against the mean of three random selections, paired by video:\n"
            parts += [told, random_table(model["against_random"])]
    if model.get("seeds"):
        parts += ["### Other calibrations, other videos\n", seeds_table(model["seeds"])]
    if model.get("calibration"):
        parts += [
            "### How much calibration the ranking needs\n\nSpearman's correlation with AAS of 8 prompts, all steps:\n",
            table(
                ("prompts", "steps", "layers", "heads"),
                (
                    (
                        str(row["prompts"]),
                        str(row["steps"] or "all"),
                        f"{row['spearman']['layer']:.3f}",
                        f"{row['spearman']['head']:.3f}",
                    )
                    for row in model["calibration"]
                ),
            ),
        ]
    return "\n".join(parts)


def left_out(data: Mapping[str, Any]) -> list[str]:
    """Rows that some model has and another lacks, in a part that both have."""
    found = []
    for part in ("selection", "mode", "pairs", "stages", "seeds"):
        rows = {name: [_kind(row) for row in model.get(part, ())] for name, model in data.items()}
        every = dict.fromkeys(kind for kinds in rows.values() for kind in kinds)
        for name, kinds in rows.items():
            missing = [kind for kind in every if kind not in kinds] if kinds else []
            found += [f"zoo:{name}: {kind} ({part})" for kind in missing]
    return found


def _kind(row: Row) -> str:
    config = row["config"]
    return f"{config['granularity']}s by {SCORES[config['score']]}, {config['mode']}"


def page(data: Mapping[str, Any]) -> str:
    """The whole page."""
    ordered = {name: data[name] for name in KINDS if name in data}
    missing = [name for name in KINDS if name not in data]
    asked = ("selection", "mode", "replacements", "pairs", "stages", "seeds", "agreement", "speed", "calibration")
    without = [
        f"zoo:{name}: {', '.join(gone)}"
        for name, model in ordered.items()
        if (
            gone := [
                part for part in asked if part not in model and not ("cogvideo" in name and part in ("pairs", "stages"))
            ]
        )
    ]
    text = (HOME / "fidelity_head.md").read_text(encoding="utf-8")
    if not_there := [*(f"zoo:{name}: everything" for name in missing), *without, *left_out(ordered)]:
        text += "\nNot measured yet: " + "; ".join(not_there) + ".\n"
    sections = [
        text,
        replacement_section(ordered),
        verdicts(ordered),
        "## Recommended settings\n",
        recommended(ordered),
    ]
    sections += [model_section(name, model) for name, model in ordered.items()]
    return "\n".join(section.rstrip() + "\n" for section in sections)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=HOME / "results" / "study.json")
    parser.add_argument("--out", type=Path, default=HOME.parent / "docs" / "fidelity.md")
    options = parser.parse_args()
    options.out.write_text(page(json.loads(options.json.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
