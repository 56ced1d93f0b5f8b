"""Speed: what was measured, and what the arithmetic allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f3prune.bench.costs.ceiling import share_of_allowed
from f3prune.report.page.html import Section, details, figure, paragraph, table
from f3prune.report.page.rows import Row, bars, dots


def speed(data: Mapping[str, Any]) -> Section | None:
    """The section, if speed was measured."""
    found = data.get("speed")
    if not found:
        return None
    ratio, limit = found["speedup"], data.get("ceiling")
    gain = f"Dense over pruned: {ratio['engine']:.2f}× with the engine, {ratio['torch']:.2f}× in PyTorch."
    parts = [paragraph(gain)]
    machine = found["machine"]
    threads = f"{machine['torch_threads']} thread{'s' * (machine['torch_threads'] != 1)}"
    runs = min(row["runs"] for row in found["seconds"].values())
    rows = [
        Row(
            name,
            1e3 * row["median"],
            f"{1e3 * row['median']:.4g} ms",
            1e3 * row["quartile_1"],
            1e3 * row["quartile_3"],
            name.split()[0] if name.split()[0] in {"dense", "pruned"} else "plain",
        )
        for name, row in found["seconds"].items()
    ]
    caption = (
        f"Milliseconds per {found['unit']}, medians and quartiles of {runs} rounds: {found['what']}. Engine: "
        f"{found['backend']} {found['engine_dtype']}; PyTorch {found['torch_dtype']}; batch {found['batch']}; "
        f"{machine['gpu'] or machine['processor']}, {threads}."
    )
    parts.append(figure(bars(rows, f"milliseconds per {found['unit']}"), caption))
    if limit:
        parts.append(_ceiling(ratio, limit))
    numbers = [
        [name, *(1e3 * row[key] for key in ("quartile_1", "median", "quartile_3", "min")), row["runs"]]
        for name, row in found["seconds"].items()
    ]
    header = ["milliseconds", "lower quartile", "median", "upper quartile", "least", "rounds"]
    parts.append(details("The numbers", table(header, numbers)))
    return Section("speed", "Speed", "".join(parts))


def _ceiling(ratio: Mapping[str, float], limit: Mapping[str, float]) -> str:
    """``limit``: operations of a call's matrix products, dense and pruned, and what they allow."""
    allowed = float(limit["allow"])
    rows = [
        Row(name, ratio[key], f"{ratio[key]:.2f}×, {100 * share_of_allowed(ratio[key], allowed):.0f} %", kind="pruned")
        for key, name in (("engine", "engine"), ("torch", "PyTorch"))
    ]
    values = [1.0, allowed, *(row.value for row in rows)]
    room = 0.1 * ((max(values) - min(values)) or 1.0)
    chart = dots(
        rows,
        "speed-up",
        min(values) - room,
        max(values) + room,
        [(1.0, "1×", "zero"), (allowed, f"ceiling {allowed:.2f}×", "limit")],
    )
    return figure(
        chart,
        f"Speed-up beside its ceiling, and what share of the ceiling it is. The ceiling is what would be gained if "
        f"a call were its matrix products alone: {limit['dense'] / 1e9:.4g} GFLOP dense, "
        f"{limit['pruned'] / 1e9:.4g} pruned. Softmax shrinks too, and timings scatter, so a measurement can pass it.",
    )
