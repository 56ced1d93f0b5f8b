"""What commands print: rich tables and one-line descriptions."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from f3prune.bench.costs.machine import MachineRates
    from f3prune.bench.costs.plan import Plan
    from f3prune.workflow import RunSummary


def show(*tables: Table) -> None:
    """Print tables on standard output; where that is no terminal, wide enough that nothing is cut."""
    console = Console() if sys.stdout.isatty() else Console(width=200)
    for table in tables:
        console.print(table)


def verified_facts() -> dict[str, Any]:
    """What was verified for each family, as the verification script wrote it; empty where it never ran."""
    file = resources.files("f3prune.families") / "verified.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(value) if isinstance(value, dict) else {}


def families_table() -> Table:
    """The supported families."""
    from f3prune.families import registry

    verified = verified_facts()
    known = verified.get("families", verified)
    table = Table(title="Supported model families")
    for column in ("family", "models", "denoiser class", "layout", "text", "verified", "notes"):
        table.add_column(column, overflow="fold")
    for family in registry().values():
        facts = known.get(family.name)
        table.add_row(
            family.name,
            family.title,
            family.denoiser_class,
            family.layout,
            family.text,
            _facts(facts) if facts else "–",
            family.notes,
        )
    return table


def _facts(facts: Any) -> str:
    """One line of verified facts: text as it is, mappings as ``name value``."""
    if isinstance(facts, Mapping):
        return ", ".join(str(name) if value is True else f"{name} {value}" for name, value in facts.items() if value)
    if isinstance(facts, list):
        return ", ".join(map(str, facts))
    return str(facts)


def describe_counts(counts: Mapping[str, int]) -> str:
    """What a stage prunes, e.g. ``2 of 6 sites``."""
    parts = []
    if counts["sites_pruned"]:
        parts.append(f"{counts['sites_pruned']} of {counts['sites']} sites")
    if counts["heads_pruned"] > counts["heads_of_pruned_sites"]:
        parts.append(f"{counts['heads_pruned']} of {counts['heads']} heads")
    if counts["pairs_pruned"]:
        parts.append(f"{counts['pairs_pruned']} of {counts['pairs']} frame pairs")
    return (" and ".join(parts) or "nothing") + " pruned"


def describe_graph(graph: Mapping[str, Any]) -> str:
    """What an export wrote, e.g. ``412 nodes, opset 20``."""
    facts = graph.get("facts", {})
    parts = [f"{facts['nodes']:,} nodes"] if "nodes" in facts else []
    parts.append(f"opset {graph['opset']}")
    test = graph.get("self_test")
    if test and test.get("calls"):
        parts.append(f"self-test relative L2 {max(float(call['rel_l2']) for call in test['calls']):.1e}")
    if graph.get("self_test_skipped"):
        parts.append(f"no self-test: {graph['self_test_skipped']}")
    return ", ".join(parts)


def speed_table(speed: Mapping[str, Any]) -> Table:
    """Milliseconds per denoiser call, or per token, of every contestant."""
    runs = min(row["runs"] for row in speed["seconds"].values())
    title = f"One {speed['unit']}, {speed['backend']} {speed['engine_dtype']}, batch {speed['batch']}, {runs} rounds"
    table = Table(title=title)
    table.add_column("denoiser")
    for column in ("median, ms", "quartiles, ms", "against dense"):
        table.add_column(column, justify="right")
    for name, row in speed["seconds"].items():
        dense = speed["seconds"][name.replace("pruned", "dense")]["median"]
        quartiles = f"{1e3 * row['quartile_1']:.2f} – {1e3 * row['quartile_3']:.2f}"
        table.add_row(name, f"{1e3 * row['median']:.2f}", quartiles, f"{dense / row['median']:.2f}×")
    return table


def parity_table(report: Any) -> Table:
    """The comparisons of a check, a row per recorded call."""
    table = Table(title="Parity on recorded denoiser calls")
    for column in ("what", "candidate against reference"):
        table.add_column(column, overflow="fold")
    for column in ("timestep", "relative L2", "max abs", "cosine"):
        table.add_column(column, justify="right")
    for name, comparison in (("export", report.export), ("pruning", report.pruning)):
        if comparison is None:
            continue
        for step in comparison.steps:
            numbers = step.numbers
            table.add_row(
                name,
                f"{comparison.candidate} against {comparison.reference}",
                f"{step.timestep:g}",
                f"{numbers.rel_l2:.2e}",
                f"{numbers.max_abs:.2e}",
                f"{numbers.cosine:.6f}",
            )
        if comparison.psnr is not None:
            what = f"{comparison.candidate} against {comparison.reference}, each on its own"
            table.add_row(name, what, "video", video_psnr(comparison), "", "")
    return table


def video_psnr(comparison: Any) -> str:
    """How alike the free-running videos are, in words."""
    return "equal" if math.isinf(comparison.psnr) else f"PSNR {comparison.psnr:.2f} dB"


def coupling_table(report: Any) -> Table:
    """Which frames answer when one frame's latents change."""
    table = Table(title="Temporal coupling: change one frame, see which answer")
    for column in ("denoiser", "frame changed", "frames that answer"):
        table.add_column(column)
    for name, found in report.coupling.items():
        for frame in range(found.frames):
            if any(found.response[frame]):
                table.add_row(name, str(frame), ", ".join(map(str, found.responding(frame))))
    return table


def plan_tables(found: Plan, rates: MachineRates, dtype: str) -> list[Table]:
    """What a plan says: the arithmetic, and what making the engine takes."""
    size = ", ".join(f"{name} {value}" for name, value in found.shape.items())
    gain = Table(title=f"{found.title}: {found.sites} sites; {size}")
    for column in ("α", "parameters", f"TFLOP a {found.unit}", "scores and values", "projections of sites"):
        gain.add_column(column, justify="right")
    gain.add_column("products allow", justify="right")
    gain.add_column(f"at {rates.flops_of(dtype) / 1e9:,.0f} GFLOP/s", justify="right")
    cost = Table(title=f"Export and TensorRT-RTX build in {dtype}, to expect on two cores")
    for column in ("α", "weights", "export: memory", "time", "build: memory", "time", "disk"):
        cost.add_column(column, justify="right")
    for outlook in found.outlooks:
        name = "dense" if outlook.alpha == 0 else f"{outlook.alpha:g}"
        gain.add_row(
            name,
            f"{outlook.parameters / 1e6:,.1f} M",
            f"{outlook.flops / 1e12:,.3f}",
            f"{outlook.attention_flops / outlook.flops:.1%}",
            f"{outlook.projection_flops / outlook.flops:.1%}",
            f"{outlook.products_allow:.2f}×",
            f"{outlook.seconds:,.3g} s",
        )
        cost.add_row(
            name,
            f"{outlook.weights_bytes / 1e9:.2f} GB",
            f"{outlook.export_peak_bytes / 1e9:.1f} GB",
            f"{outlook.export_seconds:,.0f} s",
            f"{outlook.build_peak_bytes / 1e9:.1f} GB",
            f"{outlook.build_seconds:,.0f} s",
            f"{outlook.disk_bytes / 1e9:.1f} GB",
        )
    return [gain, cost]


def summary_table(summary: RunSummary, path: Path) -> Table:
    """What a run did and found."""
    table = Table(title=f"f3prune run {path}", show_header=False)
    table.add_column("what", style="bold")
    table.add_column("found", overflow="fold")
    done = [f"{name} {seconds:.1f} s" for name, seconds, made in summary.steps if made]
    kept = [name for name, _, made in summary.steps if not made]
    if done:
        table.add_row("done", ", ".join(done))
    if kept:
        table.add_row("up to date", ", ".join(kept))
    if summary.pruned is not None and summary.calibration is not None:
        before = summary.calibration.facts["parameters"]
        for stage, (counts, after) in enumerate(
            zip(summary.pruned.facts["counts"], summary.pruned.facts["parameters"], strict=True)
        ):
            name = "pruned" if len(summary.pruned.facts["counts"]) == 1 else f"pruned, stage {stage}"
            change = f"{100 * (after / before - 1):+.1f} %" if after != before else "unchanged"
            table.add_row(name, f"{describe_counts(counts)}; {before:,} parameters before, {after:,} after ({change})")
    if summary.speed:
        seconds = {name: 1e3 * row["median"] for name, row in summary.speed["seconds"].items()}
        for kind, ratio in summary.speed["speedup"].items():
            contest = "PyTorch" if kind == "torch" else kind
            table.add_row(
                f"speed, {contest}",
                f"dense {seconds[f'dense {contest}']:.2f} ms, pruned {seconds[f'pruned {contest}']:.2f} ms "
                f"per {summary.speed['unit']} (medians of alternating runs): {ratio:.2f}×",
            )
    if summary.parity is not None:
        for name, comparison in (("pruning error", summary.parity.pruning), ("export error", summary.parity.export)):
            worst = comparison.worst if comparison is not None else None
            if comparison is not None and worst is not None:
                text = f"relative L2 {worst.numbers.rel_l2:.2e} at worst, {comparison.candidate} against "
                video = "" if comparison.psnr is None else f"; whole video {video_psnr(comparison)}"
                table.add_row(name, f"{text}{comparison.reference}{video}{'' if comparison.passed else '; FAILED'}")
    if summary.generated is not None:
        found = summary.generated.facts["fidelity"]
        psnr = "equal" if found["psnr"] is None else f"PSNR {found['psnr']:.2f} dB"
        table.add_row("video", f"{path / 'video.mp4'}; against the dense one: {psnr}, SSIM {found['ssim']:.4f}")
        table.add_row("frames", str(path / "frames.png"))
    if summary.report is not None:
        table.add_row("report", str(summary.report))
    return table


def choices_tables(choices: Mapping[str, Any]) -> list[Table]:
    """What mode auto chose from, a table for every stage: error of the output with a replacement alone, and saving."""
    tables = []
    for number, offers in enumerate(choices["offers"]):
        saved, speedup = choices["saved"][number], choices["speedup"][number]
        title = (
            f"error alone, and share of the sites' products saved; * chosen: {saved:.0%} saved, {speedup:.2f}x at most"
        )
        if len(choices["offers"]) > 1:
            title = f"stage {number}: {title}"
        modes = list(dict.fromkeys(offer["mode"] for offer in offers))
        table = Table("site", *modes, title=title)
        for site in dict.fromkeys(offer["site"] for offer in offers):
            cells = {
                offer["mode"]: f"{offer['error']:.2g}, {offer['saved']:.1%}{' *' if offer['chosen'] else ''}"
                for offer in offers
                if offer["site"] == site
            }
            table.add_row(site, *(cells.get(mode, "") for mode in modes))
        tables.append(table)
    return tables
