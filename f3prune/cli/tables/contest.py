"""What ``f3prune bench --contenders`` shows: a table that grows while it runs, and the result."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from f3prune.cli.messages import for_command_line

if TYPE_CHECKING:
    from f3prune.bench.contest import ContestEntry

TIMES = ("denoising, ms", "quartiles, ms", "over PyTorch", "generation, ms")


def standing(entries: Sequence[ContestEntry]) -> Table:
    """How the contest stands: turns taken and medians so far."""
    table = Table(box=None, pad_edge=False)
    table.add_column("contender")
    for column in ("turns", "denoising, s", "generation, s"):
        table.add_column(column, justify="right")
    for entry in entries:
        name = entry.contender.name
        if entry.missing is not None:
            table.add_row(name, f"[dim]{entry.missing.status}[/dim]", "", "")
        elif entry.first is not None:
            denoising = entry.denoising or [entry.first.denoising]
            whole = entry.whole or [entry.first.whole]
            turns = str(len(entry.denoising)) if entry.denoising else "warm"
            table.add_row(name, turns, f"{statistics.median(denoising):.3f}", f"{statistics.median(whole):.3f}")
    return table


def contest_table(result: Mapping[str, Any]) -> Table:
    """Every contender: time of its denoising and of the whole generation, quality, and ours at equal quality."""
    runs = min(row["denoising"]["runs"] for row in result["rows"] if row["status"] == "measured")
    table = Table(title=f"{result['what']}; medians of {runs} turns")
    table.add_column("contender", overflow="fold")
    for column in (*TIMES, "products' share", "GEMM speed-up bound", "PSNR, dB", "SSIM", "ours, equal PSNR"):
        table.add_column(column, justify="right")
    matched = {match["other"]: match for match in result["equal_quality"]}
    dense = next(row for row in result["rows"] if row["contender"]["kind"] == "pytorch")
    for row in result["rows"]:
        if row["status"] != "measured":
            table.add_row(row["name"], escape(f"{row['status']}: {for_command_line(row['reason'])}"))
            continue
        times = row["denoising"]
        match = matched.get(row["name"])
        table.add_row(
            f"[bold]{row['name']}[/bold]" if row["own"] else row["name"],
            f"{1e3 * times['median']:.1f}",
            f"{1e3 * times['quartile_1']:.1f} – {1e3 * times['quartile_3']:.1f}",
            f"{dense['denoising']['median'] / times['median']:.2f}×",
            f"{1e3 * row['generation']['median']:.1f}",
            *products(row),
            psnr(row["psnr"], result["cap_db"]),
            f"{row['ssim']:.4f}",
            "" if match is None else ratio(match["ratio"]),
        )
    return table


def psnr(value: float | None, cap: float) -> str:
    """A PSNR as tables show it: above the cap all are equal."""
    if value is None:
        return "same"
    return f"≥ {cap:.0f}" if value >= cap else f"{value:.1f}"


def products(row: Mapping[str, Any]) -> tuple[str, str]:
    """Share of the time that matrix products alone take, and the Amdahl ceiling of the pruning."""
    found = row.get("products")
    return ("", "") if found is None else (f"{found['share']:.2f}", f"{found['allow']:.2f}×")


def ratio(value: float | None) -> str:
    """How many times faster ours is."""
    return "none as good" if value is None else f"{value:.2f}×"


def verdicts(result: Mapping[str, Any]) -> Iterator[str]:
    """The hardest other contender at equal quality, in words."""
    for key, what in (("best_other", "all others"), ("best_other_without_pruning", "those without our pruning")):
        match = result[key]
        if match is None:
            yield f"of {what}: none was measured"
            continue
        same = match["psnr"] is None
        quality = "as dense" if same else f"PSNR {psnr(match['psnr'], result['cap_db'])} dB"
        if match["own"] is None:
            yield f"of {what}: {match['other']} ({quality}), and none of ours is as close to dense"
        else:
            yield (
                f"of {what}, the hardest at equal PSNR: {match['other']} ({quality}); "
                f"{match['own']} is {match['ratio']:.2f} times as fast"
            )
