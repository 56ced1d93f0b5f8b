"""What was measured: quality, speed, the sweep, parity. Each section is there if its step ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from f3prune.report.charts import Axis, Grid, Legend, Line, Plot, Point, Row, RowChart, Scale
from f3prune.report.text import Chip, Table, finite, interval, number

_VERDICTS = {"better": "good", "worse": "bad", "undecided": "plain"}
_DIRECTIONS = {"higher": " ↑", "lower": " ↓"}
_COMPARED = {"paired": "pruned to dense", "each": "each by itself", "distance": "real videos"}
_ROWS = 12
"""Of the sweep's table that are shown without being asked for."""
_STAGES = (
    ("pruning", "Pruning", "what pruning cost", "gone"),
    ("export", "Export and engine", "what export and the engine cost", "pruned"),
)


@dataclass(frozen=True)
class Quality:
    """Metrics of ``evaluation.json``; ``differences`` are turned so that better lies at the right."""

    found: Mapping[str, Any]
    differences: Sequence[RowChart]
    table: Table

    @classmethod
    def of(cls, found: Mapping[str, Any] | None) -> Quality | None:
        """The section, if the run was evaluated."""
        if not found:
            return None
        rows, charts = [], []
        for name, metric in found["metrics"].items():
            change = found["difference"].get(name)
            rows.append(
                [
                    _title(metric) + _DIRECTIONS.get(str(metric["better"]), ""),
                    _COMPARED[metric["kind"]],
                    *(_shown(found[side].get(name)) for side in ("dense", "pruned")),
                    _shown(change),
                    Chip(change["verdict"], _VERDICTS[change["verdict"]]) if change else None,
                ]
            )
        for name, change in found["difference"].items():
            if finite(change["value"]) is not None:
                charts.append(_difference(found["metrics"][name], change))
        header = ["metric", "compares", "dense", "pruned", "difference", "verdict"]
        return cls(found, charts, Table.of(header, rows))


def _difference(metric: Mapping[str, Any], change: Mapping[str, Any]) -> RowChart:
    value, sign = float(change["value"]), -1.0 if metric["better"] == "lower" else 1.0
    low, high = sorted(sign * bound for bound in change["interval"]) if change["interval"] else (None, None)
    reach = max(abs(value), abs(low or 0.0), abs(high or 0.0)) * 1.15 or 1.0
    shown = f"{'+' if value > 0 else ''}{number(value)}"
    row = Row(_title(metric), sign * value, shown, low, high, _VERDICTS[change["verdict"]])
    return RowChart(Axis("pruned minus dense", -reach, reach), [row], marks=[(0.0, "", "zero")])


def _title(metric: Mapping[str, Any]) -> str:
    return f"{metric['title']}, {metric['unit']}" if metric["unit"] else str(metric["title"])


def _shown(value: Mapping[str, Any] | None) -> str:
    return "–" if value is None else interval(finite(value["value"]), value["interval"])


@dataclass(frozen=True)
class Speed:
    """Times of ``bench.json``, and speed-ups beside ``limit``, the GEMM speed-up bound."""

    found: Mapping[str, Any]
    times: RowChart
    runs: int
    limit: Mapping[str, float] | None
    gains: RowChart | None
    table: Table

    @classmethod
    def of(cls, found: Mapping[str, Any] | None, limit: Mapping[str, float] | None) -> Speed | None:
        """The section, if speed was measured."""
        if not found:
            return None
        rows, numbers = [], []
        for name, seconds in found["seconds"].items():
            low, middle, high, least = (1e3 * seconds[key] for key in ("quartile_1", "median", "quartile_3", "min"))
            kind = name.split()[0] if name.split()[0] in {"dense", "pruned"} else "plain"
            rows.append(Row(name, middle, f"{middle:.4g} ms", low, high, kind))
            numbers.append([name, low, middle, high, least, seconds["runs"]])
        most = max((max(row.value, row.high or 0.0) for row in rows), default=0.0) or 1.0
        header = ["milliseconds", "lower quartile", "median", "upper quartile", "least", "rounds"]
        return cls(
            found,
            RowChart(Axis(f"milliseconds per {found['unit']}", 0.0, most), rows, bars=True),
            min(row["runs"] for row in found["seconds"].values()),
            limit,
            _gains(found["speedup"], limit["allow"]) if limit else None,
            Table.of(header, numbers),
        )


def _gains(speedup: Mapping[str, float], allowed: float) -> RowChart:
    rows = [
        Row(name, gain, f"{gain:.2f}×, {100 * gain / allowed:.0f} %", kind="pruned")
        for name, gain in (("engine", speedup["engine"]), ("PyTorch", speedup["torch"]))
    ]
    values = [1.0, allowed, *(row.value for row in rows)]
    room = 0.1 * ((max(values) - min(values)) or 1.0)
    marks = [(1.0, "1×", "zero"), (allowed, f"ceiling {allowed:.2f}×", "limit")]
    return RowChart(Axis("speed-up", min(values) - room, max(values) + room), rows, marks=marks)


@dataclass(frozen=True)
class Sweep:
    """Speed-up beside quality of every configuration: how many, how many on the Pareto front, and all, front first."""

    metric: str
    points: int
    front: int
    plot: Plot | None
    shown: Table
    rest: Table

    @classmethod
    def of(cls, found: Mapping[str, Any] | None) -> Sweep | None:
        """The section, if configurations were swept."""
        if not found or not found["points"]:
            return None
        points = sorted(found["points"], key=lambda point: (not point["pareto"], -point["speedup"]))
        metrics = found["metrics"]
        titles = map(_title, metrics.values())
        header = ["#", "configuration", "front", "speed-up", "ms", *titles, "pruned", "masks"]
        rows = [
            [
                str(index),
                _configuration(point["config"]),
                Chip("front", "good") if point["pareto"] else "",
                f"{point['speedup']:.2f}×",
                round(1e3 * point["seconds"]["median"], 2),
                *(_shown(point["quality"].get(name)) for name in metrics),
                _counts(point["pruned"]),
                str(point["masks"]),
            ]
            for index, point in enumerate(points, start=1)
        ]
        front = sum(bool(point["pareto"]) for point in points)
        tables = (Table.of(header, rows[:_ROWS]), Table.of(header, rows[_ROWS:]))
        return cls(_title(metrics[found["quality"]]), len(points), front, _front(found, points), *tables)


def _front(found: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Plot | None:
    name, dense = found["quality"], found["dense"]["seconds"]["median"]
    metric = found["metrics"][name]
    drawn, xs, ys = [], [1.0], []
    for index, point in enumerate(points, start=1):
        quality = point["quality"].get(name)
        value = None if quality is None else finite(quality["value"])
        if quality is None or value is None:
            continue
        across = (dense / point["seconds"]["quartile_3"], dense / point["seconds"]["quartile_1"])
        up = tuple(quality["interval"]) if quality["interval"] else None
        xs += [point["speedup"], *across]
        ys += [value, *(up or ())]
        tip = f"{index}: {_configuration(point['config'])}: {point['speedup']:.2f}×, {_title(metric)} {value:.4g}"
        label, kind = (str(index), "pruned") if point["pareto"] else ("", "plain")
        drawn.append(Point(point["speedup"], value, tip, label, kind, across, up))
    if not drawn:
        return None
    own = found["dense"].get("quality", {}).get(name)
    reference = [] if own is None else [value for value in [finite(own["value"])] if value is not None]
    flipped = metric["better"] == "lower"
    corners = sorted((point.x, point.y) for point in drawn if point.kind == "pruned")
    drawn.sort(key=lambda point: point.kind == "pruned")
    drawn += [Point(1.0, value, f"dense: {value:.4g}", "dense", "dense") for value in reference]
    return Plot(
        "quality over speed-up of every configuration",
        Axis.around("speed-up over dense", xs),
        Axis.around(f"{_title(metric)}{', turned: better is up' * flipped}", [*ys, *reference], flipped),
        drawn,
        [Line(corners, "pruned", dashed=True)],
        [("pruned", "Pareto front"), ("plain", "other configurations")],
    )


def _configuration(config: Mapping[str, Any]) -> str:
    parts = [f"α {config['alpha']:g}", str(config["granularity"]), str(config["mode"])]
    if config["aggregate"] != "timesteps":
        parts.append(f"over {config['aggregate']}")
    if config["stages"] != 1:
        parts.append(f"{config['stages']} stages")
    return ", ".join([*parts, f"by {config['score']}"])


def _counts(pruned: Mapping[str, int]) -> str:
    kinds = ("sites", "heads", "pairs")
    found = [f"{pruned[f'{kind}_pruned']} of {pruned[kind]} {kind}" for kind in kinds if pruned[f"{kind}_pruned"]]
    return ", ".join(found) or "nothing"


@dataclass(frozen=True)
class Card:
    """One comparison of ``check.json``, its verdict, and its terms with their values."""

    name: str
    found: Mapping[str, Any]
    verdict: Chip
    terms: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, name: str, stage: Mapping[str, Any]) -> Card:
        """The card of a stage."""
        bound = stage["bounds"].get("rel_l2")
        if not stage["passed"]:
            verdict = Chip("failed", "bad")
        elif any(value is not None for value in stage["bounds"].values()):
            verdict = Chip("passed", "good")
        else:
            verdict = Chip("measured, no bound asked", "plain")
        errors = [finite(step["rel_l2"]) for step in stage["steps"]]
        worst = "not finite" if None in errors else f"{max((e for e in errors if e is not None), default=0.0):.2e}"
        terms = [("worst relative L2", worst + (f" (bound {bound:g})" if bound is not None else ""))]
        if stage["psnr"] is not None:
            alike = finite(stage["psnr"])
            # Each side made the whole video by itself from one seed.
            terms.append(("PSNR of the whole video", "equal" if alike is None else f"{alike:.2f} dB"))
        return cls(name, stage, verdict, terms)


@dataclass(frozen=True)
class Parity:
    """What pruning cost, what export cost, and for every denoiser which frames still hear of each other."""

    cards: Sequence[Card]
    plot: Plot | None
    tables: Sequence[tuple[str, Table]]
    legend: Legend | None
    coupling: Sequence[tuple[str, Grid, str]]

    @classmethod
    def of(cls, found: Mapping[str, Any] | None) -> Parity | None:
        """The section, if the run was checked."""
        if not found:
            return None
        stages = [(title, meaning, kind, found[name]) for name, title, meaning, kind in _STAGES if found[name]]
        tables = [
            (
                f"{title}, {meaning}, by timestep",
                Table.of(
                    ["timestep", "relative L2", "max abs", "cosine"],
                    [
                        [_place(step), finite(step["rel_l2"]), finite(step["max_abs"]), _cosine(step)]
                        for step in stage["steps"]
                    ],
                ),
            )
            for title, meaning, _, stage in stages
        ]
        cards = [Card.of(title, stage) for title, _, _, stage in stages]
        return cls(cards, _distances(stages), tables, *_coupling(found["coupling"] or {}))


def _output(step: Mapping[str, Any]) -> str:
    return str(step.get("output", "sample"))


def _place(step: Mapping[str, Any]) -> str:
    """The timestep, and which output where it is not the video."""
    return f"{step['timestep']:g}" + ("" if _output(step) == "sample" else f", {_output(step)}")


def _cosine(step: Mapping[str, Any]) -> str:
    shown = finite(step["cosine"])
    return str(step["cosine"]) if shown is None else f"{shown:.7f}"


def _distances(stages: Sequence[tuple[str, str, str, Mapping[str, Any]]]) -> Plot | None:
    curves = []
    for title, _, kind, stage in stages:
        known = [
            (float(step["timestep"]), finite(step["rel_l2"])) for step in stage["steps"] if _output(step) == "sample"
        ]
        curve = [(at, value) for at, value in known if value]
        if curve:
            curves.append((title, kind, curve))
    if not curves:
        return None
    times = [at for _, _, curve in curves for at, _ in curve]
    return Plot(
        "relative L2 by timestep of every stage",
        Axis.around("timestep, in the order of generation", times, flipped=times[0] > times[-1]),
        Axis.decades("relative L2", [value for _, _, curve in curves for _, value in curve]),
        [
            Point(at, value, f"{title}, timestep {at:g}: {value:.3g}", kind=kind)
            for title, kind, curve in curves
            for at, value in curve
        ],
        [Line(curve, kind) for _, kind, curve in curves],
        [(kind, title) for title, kind, _ in curves],
        height=220,
    )


def _coupling(couplings: Mapping[str, Mapping[str, Any]]) -> tuple[Legend | None, list[tuple[str, Grid, str]]]:
    responses = {
        name: [[finite(value) or 0.0 for value in row] for row in item["response"]] for name, item in couplings.items()
    }
    changed = {name: [index for index, row in enumerate(rows) if any(row)] for name, rows in responses.items()}
    if not any(changed.values()):
        return None, []
    pictures = {name: [responses[name][index] for index in found] for name, found in changed.items()}
    scale = Scale.of([row for rows in pictures.values() for row in rows], power=0.5, least=0.0)
    coupling = []
    for name, rows in pictures.items():
        reached = sum(other != index for index in changed[name] for other in couplings[name]["responding"][index])
        text = (
            f"{name}: of the other frames, a change in frame {', '.join(map(str, changed[name]))} reaches {reached} of "
            f"{len(changed[name]) * (len(responses[name]) - 1)}."
        )
        tips = [
            f"frame {index} changed: " + ", ".join(f"{other}: {number(value)}" for other, value in enumerate(row))
            for index, row in zip(changed[name], rows, strict=True)
        ]
        coupling.append((name, Grid.of(rows, scale, f"{name}: response of every frame", tips), text))
    return Legend(scale, "response"), coupling
