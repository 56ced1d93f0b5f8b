"""Short tables of what a visit measured."""

from __future__ import annotations

from typing import Any

from _visit import by_part


def show(rows: list[dict[str, Any]]) -> None:
    """Print every part: times with their ratio and bound, errors, and whatever else was measured, a line each."""
    for part, found in by_part(rows).items():
        print(f"\n{part}")
        for row in found:
            print(f"  {line(row)}")


def line(row: dict[str, Any]) -> str:
    """One result in at most 200 characters."""
    name = row["name"]
    if "error" in row:
        return f"{name:<34} REFUSED {row['error'][:160]}"
    if "kernels" in row:
        head = "; ".join(f"{kernel['kernel'][:38]} {kernel['ms']:.1f}" for kernel in row["kernels"][:5])
        return f"{name:<34} {head}"
    if "ratio" in row:
        seconds = row["seconds"]["median"] * 1000
        error = f"  error {row['error_l2']:.1e}" if "error_l2" in row else ""
        return (
            f"{name:<34} {seconds:9.3f} ms {row['ratio']:6.2f}x of {row['bound']:6.2f}x, share {row['share']:.2f}"
            f"{error}"
        )
    rest = ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key != "name")
    return f"{name:<34} {rest}"[:200]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} {_short(item)}" for key, item in value.items()) + "}"
    return str(value)
