"""Draw ``docs/quality-speed.png``: quality of whole videos over engine speed, a line for every replacement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from replacement_page import AUTO, speed
from study_tables import KINDS, keeps_quality

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
COLOURS = {
    "local": "#8b8f98",
    "drop": "#c9a26b",
    "static": "#2f6fde",
    "window": "#3aa37a",
    "pooled": "#8a4fd3",
    AUTO: "#d6336c",
}


def main() -> None:
    """Read the results and draw them."""
    data = json.loads((HERE / "results" / "study.json").read_text(encoding="utf-8"))
    shown = [name for name in KINDS if len(data.get(name, {}).get("replacement_speed", ())) > 1]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.6 * len(shown), 3.4), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], shown, strict=True):
        lines: dict[tuple[str, bool], list[tuple[float, float, bool]]] = {}
        for row in data[name]["replacements"]:
            found = speed(data[name], row["config"]) if "quality" in row else None
            if found is not None:
                kind = (row["config"]["mode"], bool(row["config"]["refit"]))
                lines.setdefault(kind, []).append((found, row["quality"]["psnr"]["value"], keeps_quality(row)))
        for (mode, refit), points in sorted(lines.items()):
            _line(axis, mode, refit, sorted(points))
        axis.set_title(f"zoo:{name}", fontsize=10)
        axis.set_xlabel("engine over dense", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=6, frameon=False)
    axes[0][0].set_ylabel("PSNR against dense, dB", fontsize=9)
    figure.suptitle("filled: no interval of digit, motion or FVD is worse than dense", fontsize=8, color="#444")
    figure.savefig(HERE.parent / "docs" / "quality-speed.png", dpi=110)


def _line(axis: Any, mode: str, refit: bool, points: list[tuple[float, float, bool]]) -> None:
    colour = COLOURS[mode.partition(":")[0]]
    label = mode + (" refit" if refit else "")
    axis.plot(
        [x for x, _, _ in points], [y for _, y, _ in points], "-" if refit else ":", color=colour, lw=1, label=label
    )
    for x, y, kept in points:
        axis.plot(x, y, "o", ms=4, color=colour, markerfacecolor=colour if kept else "white")


if __name__ == "__main__":
    main()
