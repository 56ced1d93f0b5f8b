"""What a check found."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table


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
                name if step.output == "sample" else f"{name}, {step.output}",
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
