"""The part of docs/fidelity.md that users come for: how fast, at what loss, which setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study_tables import KINDS, SIGNIFICANT, Row, change, keeps_quality, number, table

from f3prune.cli.options.pruning import REFIT_GENERATIONS


def replacement_section(data: Mapping[str, Any]) -> str:
    """Every model's table, the fastest rows first."""
    parts = [
        "## How fast, at what loss, which setting\n",
        *(
            ["![Quality over speed](quality-speed.png)\n"]
            if any(m.get("replacement_speed") for m in data.values())
            else []
        ),
        "Each row is one setting of `f3prune prune`. *Engine* is the speed of its ONNX Runtime engine over the dense "
        "engine's, measured in one run, in turn. PSNR is that of whole videos against the dense model's. *Kept* says "
        "yes where no interval says that fewer digits or motions are right, or that FVD is higher. With `--mode "
        "auto`, α is the share of the sites' multiplications that is to be saved; *saved* is what is.\n",
    ]
    if any(model.get("replacement_speed") for model in data.values()):
        parts += [
            "Of the settings in this section, the fastest of each model that keeps quality, pruned minus dense:\n",
            fastest_kept(data),
        ]
    for name, model in data.items():
        rows = [row for row in model.get("replacements", ()) if "quality" in row]
        if rows:
            parts += [f"### zoo:{name}: {KINDS[name]}\n", _rows(model, rows)]
    return "\n".join(parts)


def _rows(model: Row, rows: list[Row]) -> str:
    def order(row: Row) -> tuple[float, float]:
        return (speed(model, row["config"]) or 0.0, row["quality"]["psnr"]["value"])

    dense = rows[0]["dense"]
    body = [
        (
            "dense",
            "",
            "1",
            "",
            f"{100 * dense['prompt_digit']['value']:.0f}",
            f"{100 * dense['prompt_motion']['value']:.0f}",
            f"{dense['fvd']['value']:.1f}",
            "",
        )
    ]
    for row in sorted(rows, key=order, reverse=True):
        config = row["config"]
        found, share = speed(model, config), saved(model, config)
        body.append(
            (
                setting(config),
                "" if share is None else f"{share:.0%}",
                "not measured" if found is None else f"{found:.2f}×",
                number(row["quality"]["psnr"], 1),
                change(row, "prompt_digit", 0, 100),
                change(row, "prompt_motion", 0, 100),
                change(row, "fvd", 1),
                "yes" if keeps_quality(row) else "no",
            )
        )
    samples = {len(row["psnr"]) for row in rows}
    header = ("setting", "saved", "engine", "PSNR, dB", "digit, %", "motion, %", "FVD", "kept")
    return table(header, body) + f"\n{' or '.join(map(str, sorted(samples)))} videos of every row.\n"


def fastest_kept(data: Mapping[str, Any]) -> str:
    """Of every model the fastest measured replacement that keeps quality, with differences to the dense model."""
    body = []
    for name, model in data.items():
        kept = [row for row in model.get("replacements", ()) if "quality" in row and keeps_quality(row)]
        timed = [row for row in kept if (speed(model, row["config"]) or 0.0) > 1.0]
        if not timed:
            continue
        row = max(timed, key=lambda row: (speed(model, row["config"]) or 0.0, row["quality"]["psnr"]["value"]))
        config, apart = row["config"], row["difference"]
        body.append(
            (
                f"zoo:{name}",
                setting(config),
                f"{speed(model, config):.2f}×",
                number(row["quality"]["psnr"], 1),
                number(apart["prompt_digit"], 1, 100),
                number(apart["prompt_motion"], 1, 100),
                number(apart["fvd"], 1),
            )
        )
    header = ("model", "setting", "engine", "PSNR, dB", "digit, % points", "motion, % points", "FVD")
    return table(header, body)


def setting(config: Row) -> str:
    """Options of ``f3prune prune``, those that are not its defaults."""
    parts = [f"--alpha {config['alpha']:g}", f"--mode {config['mode']}"]
    if config["granularity"] != "layer":
        parts.append(f"--granularity {config['granularity']}")
    if config["score"] != "leave-one-out":
        parts.append(f"--score {config['score']}")
    if config["refit"]:
        parts.append(
            "--refit" if config["refit"] == REFIT_GENERATIONS else f"--refit --refit-generations {config['refit']}"
        )
    return f"`{' '.join(parts)}`"


def speed(model: Row, config: Row) -> float | None:
    """Speed of the engine over the dense one's."""
    return _of_engine(model, config, "speedup")


def saved(model: Row, config: Row) -> float | None:
    """The share of all that is multiplied at the sites that is saved."""
    return _of_engine(model, config, "saved")


def _of_engine(model: Row, config: Row, what: str) -> float | None:
    for row in model.get("replacement_speed", ()):
        # A refit changes no graph.
        if {**row["config"], "refit": 0} == {**config, "refit": 0}:
            return None if row[what] is None else float(row[what])
    return None


def agreement_section(data: Mapping[str, Any]) -> str:
    """How far free scores rank units as the error does that replacing them makes."""
    found = [(name, row) for name, model in data.items() for row in model.get("agreement", ())]
    if not found:
        return ""
    cases: dict[tuple[str, str, str], dict[str, Row]] = {}
    for name, row in found:
        key = (f"zoo:{name}", f"{row['units']} {row['granularity']}s", row["mode"])
        cases.setdefault(key, {})[row["score"]] = row
    scores = list(dict.fromkeys(row["score"] for _, row in found))

    def cell(row: Row | None) -> str:
        return "" if row is None else f"{row['spearman']:+.2f} ({row['p']:.2g})"

    told = ", ".join(f"{score} in {_sure(cases, score)} of {len(cases)} cases" for score in scores)
    rows = ((*key, *(cell(one.get(score)) for score in scores)) for key, one in cases.items())
    return (
        "Scores that calibration gives for nothing stand for the error that replacing a unit makes in the denoiser's "
        "output: `aas` is attention to all other frames, `far-mass` to frames beyond the window (or the next ones), "
        "`map-variance` how much a map changes over timesteps. Spearman's correlation with that error, measured with "
        f"the mode itself (p in brackets), is positive with p < {SIGNIFICANT:g} for {told}:\n\n"
        + table(("model", "units", "mode", *scores), rows)
    )


def _sure(cases: Mapping[tuple[str, str, str], Mapping[str, Row]], score: str) -> int:
    rows = [one[score] for one in cases.values() if score in one]
    return sum(row["spearman"] > 0 and row["p"] < SIGNIFICANT for row in rows)
