"""The picture of a contest: quality over time, this package's engines as curves over α, everything else as marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from f3prune.bench.equal_quality import CAP_DB
from f3prune.core.atomic_files import atomic_write

_OWN = ("#c2410c", "#ea8a3a", "#9a3412", "#f5b971", "#7c2d12", "#d97706")
_OTHER = {
    "pytorch": ("#1e3a8a", "s"),
    "pytorch-pruned": ("#93c5fd", "s"),
    "torch-compile": ("#2563eb", "D"),
    "pyramid-attention-broadcast": ("#16a34a", "^"),
    "faster-cache": ("#65a30d", "v"),
    "first-block-cache": ("#0d9488", "<"),
    "mag-cache": ("#84cc16", ">"),
    "onnxruntime": ("#111827", "P"),
    "openvino": ("#7e22ce", "X"),
}
_TITLES = {
    "pytorch": "PyTorch",
    "pytorch-pruned": "PyTorch, our pruning",
    "torch-compile": "torch.compile",
    "pyramid-attention-broadcast": "Pyramid Attention Broadcast",
    "faster-cache": "FasterCache",
    "first-block-cache": "FirstBlockCache",
    "mag-cache": "MagCache",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino-pruned": "OpenVINO, our pruning",
}


def save_plot(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw contests side by side.

    Args:
        results: contents of ``contenders.json`` by title.
        path: of the picture; its suffix says which format.
    """
    from matplotlib.figure import Figure

    width = min(len(results), 2)
    height = -(-len(results) // width)
    figure = Figure(figsize=(5.6 * width + 2.6, 3.9 * height), layout="constrained")
    axes = figure.subplots(height, width, squeeze=False)
    handles: dict[str, Any] = {}
    for index, (title, result) in enumerate(results.items()):
        handles.update(draw(axes[index // width][index % width], title, result))
    for index in range(len(results), width * height):
        axes[index // width][index % width].set_axis_off()
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw(axes: Any, title: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """One contest: seconds of denoising (logarithmic) against PSNR up to the cap; returns legend entries by label."""
    rows = [row for row in result["rows"] if row["status"] == "measured"]
    handles: dict[str, Any] = {}
    for row in rows:
        if row["own"]:
            continue
        kind = row["contender"]["kind"]
        colour, mark = _OTHER[kind]
        pruned = row["pruned"] and kind == "openvino"
        label = _TITLES[f"{kind}-pruned" if pruned else kind]
        face = "none" if row["pruned"] else colour
        handles[label] = axes.scatter(
            row["denoising"]["median"], _quality(row), marker=mark, s=42, facecolors=face, edgecolors=colour, zorder=3
        )
    own = [row for row in rows if row["own"]]
    for index, (label, curve) in enumerate(_curves([row for row in own if not _skip(row)]).items()):
        times, quality = _line(curve)
        colour = _OWN[index % len(_OWN)]
        (handles[label],) = axes.plot(times, quality, "o-", color=colour, markersize=4.5, linewidth=1.8, zorder=4)
        for place in (-1,) if index else (0, -1):
            text = f"α={_alpha(sorted(curve, key=_alpha)[place]):g}"
            point = (times[place], quality[place])
            axes.annotate(text, point, (-3, 5), textcoords="offset points", fontsize=7, ha="right", color=colour)
    for skip in sorted({_skip(row) for row in own} - {0.0}):
        # The dashes of every share of steps lie left of the line of all steps, in its colour.
        for index, curve in enumerate(_curves([row for row in own if _skip(row) == skip]).values()):
            style: dict[str, Any] = {"color": _OWN[index % len(_OWN)], "markersize": 3.5, "markerfacecolor": "none"}
            (line,) = axes.plot(*_line(curve), "o--", linewidth=0.9, zorder=4, **style)
            handles.setdefault("the same, steps skipped", line)
    axes.axhline(CAP_DB, color="#9ca3af", linewidth=0.8, linestyle=":", zorder=1)
    axes.set_xscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"denoising, seconds ({result['calls']} calls)" if result["calls"] else "generation, seconds")
    axes.set_ylabel(f"PSNR against dense, dB (≥ {CAP_DB:.0f}: equal)")
    axes.grid(alpha=0.25, which="both")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=7)
    return handles


def _quality(row: Mapping[str, Any]) -> float:
    return CAP_DB if row["psnr"] is None else float(min(row["psnr"], CAP_DB))


def _skip(row: Mapping[str, Any]) -> float:
    return float(row["contender"]["skip"])


def _line(curve: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    ordered = sorted(curve, key=_alpha)
    return [row["denoising"]["median"] for row in ordered], [_quality(row) for row in ordered]


def _alpha(row: Mapping[str, Any]) -> float:
    config = row["contender"]["config"]
    return 0.0 if config is None else float(config["alpha"])


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Engines by what is pruned and how; each curve starts at the dense engine of its backend."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    dense = {row["contender"]["backend"]: row for row in rows if row["contender"]["config"] is None}
    for row in rows:
        config, backend = row["contender"]["config"], row["contender"]["backend"]
        if config is None:
            continue
        label = f"f3prune, {config['granularity']}, {config['mode']}"
        if backend != "onnxruntime":
            label += f", {backend}"
        curves.setdefault(label, [dense[backend]] if backend in dense else []).append(row)
    if not curves and rows:
        curves["f3prune"] = list(rows)
    return curves
