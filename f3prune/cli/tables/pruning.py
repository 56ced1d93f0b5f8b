"""What was pruned, and what was exported of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from f3prune.calibration.auto import Choices


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


def choices_tables(choices: Choices) -> list[Table]:
    """What mode auto chose from, a table for every stage: error of the output with a replacement alone, and saving."""
    tables = []
    for number, offers in enumerate(choices.offers):
        saved, speedup = choices.saved[number], choices.speedup[number]
        title = (
            f"error alone, and share of the sites' products saved; * chosen: {saved:.0%} saved, {speedup:.2f}x at most"
        )
        if len(choices.offers) > 1:
            title = f"stage {number}: {title}"
        modes = list(dict.fromkeys(offer.mode for offer in offers))
        table = Table("site", *modes, title=title)
        for site in dict.fromkeys(offer.site for offer in offers):
            cells = {
                offer.mode: f"{offer.error:.2g}, {offer.saved:.1%}{' *' if offer.chosen else ''}"
                for offer in offers
                if offer.site == site
            }
            table.add_row(site, *(cells.get(mode, "") for mode in modes))
        errors = ", ".join(f"{error:.2g}" for error in sorted(choices.errors[number]))
        table.caption = f"errors of the best assignments as a whole: {errors}"
        tables.append(table)
    if choices.psnr:
        values = ", ".join(f"{value:.1f}" for value in choices.psnr)
        tables[-1].caption = f"{tables[-1].caption}; videos of the first ones: {values} dB, the best was taken"
    return tables
