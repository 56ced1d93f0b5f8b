"""What a run did and found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from f3prune.cli.messages import for_command_line
from f3prune.cli.tables.build import attention_lines
from f3prune.cli.tables.parity import video_psnr
from f3prune.cli.tables.pruning import describe_counts

if TYPE_CHECKING:
    from f3prune.workflow import RunSummary


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
    if summary.built is not None:
        for line in attention_lines(summary.built, names=False):
            table.add_row("attention", line)
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
    if summary.missing is not None:
        table.add_row("engine", f"{path / 'engine'} is built, and does not run here: {summary.missing}")
        commands = "\n".join(for_command_line(call).strip("`") for call in summary.left)
        table.add_row("left", f"on a machine with the GPU, after copying the run and MODEL:\n{commands}")
    if summary.report is not None:
        table.add_row("report", str(summary.report))
    return table
