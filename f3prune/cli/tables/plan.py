"""What a plan says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from f3prune.bench.costs.machine import MachineRates
    from f3prune.bench.costs.plan import Plan


def plan_tables(found: Plan, rates: MachineRates, dtype: str) -> list[Table]:
    """What a plan says: the arithmetic, and what making the engine takes."""
    size = ", ".join(f"{name} {value}" for name, value in found.shape.items())
    gain = Table(title=f"{found.title}: {found.sites} sites; {size}")
    for column in ("α", "parameters", f"TFLOP a {found.unit}", "scores and values", "projections of sites"):
        gain.add_column(column, justify="right")
    gain.add_column("GEMM speed-up bound", justify="right")
    gain.add_column(f"at {rates.flops_of(dtype) / 1e9:,.0f} GFLOP/s", justify="right")
    cost = Table(title=f"Export and TensorRT-RTX build in {dtype}, and check on the CPU, to expect on two cores")
    for column in (
        "α",
        "weights",
        "export: memory",
        "time",
        "build: memory",
        "time",
        "check: memory",
        "weights in files",
        "disk",
    ):
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
            f"{outlook.check_peak_bytes / 1e9:.1f} GB",
            f"{outlook.check_offloaded_bytes / 1e9:.1f} GB",
            f"{outlook.disk_bytes / 1e9:.1f} GB",
        )
    return [gain, cost]
