"""Draw ``docs/gpu.png``: what every replacement of all layers gives on the GPU, beside what operations allow."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
PARTS = {"cogvideox": "CogVideoX-2b", "wan": "Wan 2.1 1.3B"}
NAMES = {"local": "frame-local", "drop": "dropped", "window": "window 1"}


def label(name: str) -> str:
    """``pooled 3x3 w1 (split) α=1`` → ``pooled 3×3, window 1``."""
    kind, *rest = name.removesuffix(" α=1").split()
    if kind != "pooled":
        return NAMES[kind]
    window = rest[1].removeprefix("w")
    return f"pooled {rest[0].replace('x', '×')}" + (f", window {window}" if window != "0" else "")


def main() -> None:
    """Read the results and draw them."""
    result = json.loads((HERE / "results" / "gpu_a.json").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(1, len(PARTS), figsize=(9.6, 3.0), sharex=True, layout="constrained")
    for axis, (part, title) in zip(axes, PARTS.items(), strict=True):
        best: dict[str, dict[str, float]] = {}
        for row in result[part]:
            if "ratio" in row and row["name"].endswith("α=1"):
                name = label(row["name"])
                if name not in best or row["ratio"] > best[name]["ratio"]:
                    best[name] = row
        names = sorted(best, key=lambda name: best[name]["ratio"])
        axis.barh(names, [best[name]["bound"] for name in names], color="#dfe3ea", label="operations allow")
        axis.barh(names, [best[name]["ratio"] for name in names], height=0.45, color="#2f6fde", label="measured")
        for place, name in enumerate(names):
            axis.text(best[name]["ratio"] + 0.04, place, f"{best[name]['ratio']:.2f}×", va="center", fontsize=8)
        axis.axvline(1.0, color="#444", linewidth=0.8)
        axis.set_title(f"{title}, all layers", fontsize=10)
        axis.set_xlabel("over dense", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].legend(fontsize=8, loc="lower right", frameon=False)
    card = result["card"][0]
    figure.suptitle(f"{card['card']}, PyTorch {card['torch']}, bfloat16", fontsize=9, color="#444")
    figure.savefig(HERE.parent / "docs" / "gpu.png", dpi=110)


if __name__ == "__main__":
    main()
