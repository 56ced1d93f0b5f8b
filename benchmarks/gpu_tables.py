"""Tables of what the visits to a GPU measured, for the pages (``benchmarks/performance_page.py``)."""

from __future__ import annotations

from typing import Any

SHAPES = {"cogvideox-2b": "CogVideoX-2b, 226 + 13 × 1350 tokens", "wan-1.3b": "Wan 2.1 1.3B, 21 × 1560 tokens"}
MODELS = {
    "cogvideox": "CogVideoX-2b",
    "wan": "Wan 2.1 1.3B",
    "animatediff": "AnimateDiff, Stable Diffusion 1.5",
}
Row = dict[str, Any]


def tables(result: dict[str, list[Row]]) -> dict[str, str]:
    """Every table by its name."""
    return {
        "card": card(result["card"][0]),
        "engines": engines(result.get("engines", [])),
        "attention": attention(result.get("attention", [])),
        "models": models(result, compiled=False),
        "compiled": models(result, compiled=True),
    }


def card(row: Row) -> str:
    """One sentence on the machine."""
    versions = row["versions"]
    return (
        f"{row['card']} (compute capability {row['capability']}, {row['memory_gb']:.0f} GB), driver {row['driver']}, "
        f"CUDA {row['cuda']}, cuDNN {row['cudnn']}, torch {row['torch']}, diffusers {versions['diffusers']}. It copies "
        f"{row['copy_gb_s'] / 1000:.1f} TB/s and multiplies bfloat16 matrices of 8192 × 8192 at {row['bf16_tflop_s']} "
        f"TFLOP/s."
    )


def engines(rows: list[Row]) -> str:
    """What was built, and what ran or was refused in which words."""
    lines = ["| step | result |", "| --- | --- |"]
    for row in rows:
        if "error" in row:
            words = row["error"].partition("IRuntime::")[2] or row["error"].partition(": ")[2]
            lines.append(f"| {row['name']} | refused: {words} |")
        elif "worst_rel_l2" in row:
            lines.append(f"| {row['name']} | relative L2 {row['worst_rel_l2']} |")
        elif "engine" in row:
            lines.append(f"| {row['name']} | relative L2 {row['engine']:.1e}, PyTorch {row['pytorch']:.1e} |")
        elif "seconds" in row and isinstance(row["seconds"], float):
            lines.append(f"| {row['name']} | {row['seconds']:.1f} s |")
    return "\n".join(lines)


def attention(rows: list[Row]) -> str:
    """Dense kernels, then every stand-in in its quickest form, for each shape."""
    lines = [
        "| shape | attention | a call | over dense | operations allow | TFLOP/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for shape, title in SHAPES.items():
        mine = [row for row in rows if row.get("shape") == shape and "seconds" in row]
        dense = [row for row in mine if " dense " in row["name"]]
        best = min((row["seconds"]["median"] for row in dense), default=0.0)
        for row in dense:
            seconds = row["seconds"]["median"]
            kernel = row["name"].rpartition(" ")[2]
            lines.append(
                f"| {title} | dense, {kernel} | {seconds * 1000:.1f} ms | {best / seconds:.2f}× | 1.00× "
                f"| {row['tflop_s']:.0f} |"
            )
        for row in _quickest(shape, mine):
            form = row["form"]
            lines.append(
                f"| {title} | {row['what']}, {form} | {row['seconds']['median'] * 1000:.1f} ms | {row['ratio']:.2f}× "
                f"| {row['bound']:.2f}× | {row.get('tflop_s', 0):.0f} |"
            )
    return "\n".join(lines)


def _quickest(shape: str, rows: list[Row]) -> list[Row]:
    found: dict[str, Row] = {}
    for row in rows:
        words = row["name"].removeprefix(f"{shape} ").split()
        place = next((k for k, word in enumerate(words) if word in ("folded", "split", "flex")), None)
        if place is None:
            continue
        what, form = " ".join(words[:place]), " ".join(words[place:])
        if what == "pooled first":
            continue
        if what not in found or row["ratio"] > found[what]["ratio"]:
            found[what] = {**row, "what": _words(what), "form": form}
    return list(found.values())


def _words(what: str) -> str:
    """``pooled 3x3 w1`` → ``pooled 3 × 3, window 1``."""
    kind, *rest = what.split()
    if kind != "pooled":
        return what
    return f"pooled {rest[0].replace('x', ' × ')}, window {rest[1].removeprefix('w')}"


def models(result: dict[str, list[Row]], compiled: bool) -> str:
    """Whole denoisers: a call, over dense, what operations allow, the share of it."""
    lines = [
        "| model | denoiser | a call | over dense | operations allow | share |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for part, title in MODELS.items():
        for row in result.get(f"compiled_{part}" if compiled else part, []):
            if "ratio" not in row:
                continue
            lines.append(
                f"| {title} | {row['name'].removeprefix('compiled ')} | {row['seconds']['median'] * 1000:.0f} ms "
                f"| {row['ratio']:.2f}× | {row['bound']:.2f}× | {row['share']:.2f} |"
            )
    return "\n".join(lines)
