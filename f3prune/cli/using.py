"""Commands that use what was made: generate, check, run, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from f3prune.cli import options as shared
from f3prune.cli.common import check_pruning, opened, settings_from, written
from f3prune.core import choices
from f3prune.core.errors import InputError

if TYPE_CHECKING:
    from f3prune.families import SiteKind


@click.command(short_help="Generate a video with the engine.")
@shared.RUN
@click.option("--prompt", required=True, help="What the video shows.")
@click.option("--image", type=click.Path(path_type=Path), help="Conditioning image, for image-to-video models.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="out.mp4, out.gif, frame-%03d.png, sheet.png, or a new directory for PNG frames.",
)
@click.option("--steps", type=shared.COUNT, help="Denoising steps. [default: calibration's]")
@click.option("--guidance", type=shared.BoundedFloat(0.0, meaning="a guidance scale"), help="[default: calibration's]")
@click.option("--seed", type=click.IntRange(0, shared.MAX_SEED), help="[default: calibration's]")
@shared.LATENTS
@click.option("--backend", type=click.Choice(choices.BACKENDS), help="Insist on an engine of this backend.")
@click.option("--reuse", is_flag=True, help="Skip the denoising steps that `f3prune reuse` chose.")
def generate(run: Path, prompt: str, image: Path | None, output: Path, **values: Any) -> None:
    """Generate a video with the pruned engine in the original pipeline."""
    from f3prune.pipelines.video import check_output

    check_output(output)
    if image is not None and not image.is_file():
        raise InputError(f"--image {image} does not exist: give a PNG or JPEG file")
    with opened(run) as (directory, reporter):
        from f3prune.steps.generate import GenerateOptions
        from f3prune.steps.generate import generate as step

        files, frames = step(directory, GenerateOptions(prompt, image, **values), output, reporter)
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    click.echo(f"{files[0]}{more}: {frames.shape[0]} frames of {frames.shape[2]} x {frames.shape[1]} pixels")


@click.command(short_help="Choose denoising steps to skip.")
@shared.RUN
@click.option(
    "--min-psnr",
    type=shared.BoundedFloat(0.0, meaning="a PSNR in dB"),
    default=35.0,
    show_default=True,
    help="Skip as many steps as keep the video so close to the same engine's without skipping.",
)
@click.option("--skip", type=float, metavar="SHARE", help="Skip this share of the steps instead, e.g. 0.4.")
@click.option("--prompt", help="What to measure on. [default: the first calibration prompt]")
@click.option("--steps", type=shared.COUNT, help="Denoising steps. [default: calibration's]")
@click.option("--guidance", type=shared.BoundedFloat(0.0, meaning="a guidance scale"), help="[default: calibration's]")
@click.option("--seed", type=click.IntRange(0, shared.MAX_SEED), help="[default: calibration's]")
def reuse(run: Path, **values: Any) -> None:
    """Choose the denoising steps that are extrapolated from earlier ones instead of computed.

    One generation is recorded, and what skipping costs is measured by generating with a few choices. `f3prune generate
    --reuse` then skips those steps, on any prompt with the same number of steps.
    """
    with opened(run) as (directory, reporter):
        from f3prune.steps.reuse import ReuseOptions
        from f3prune.steps.reuse import reuse as step

        facts, made = step(directory, ReuseOptions(**values), reporter)
    skipped = ", ".join(str(index + 1) for index in facts["skipped"])
    click.echo(
        f"{len(facts['skipped'])} of {facts['steps']} steps are skipped ({skipped}): {facts['psnr']:.1f} dB to the "
        f"same engine without{'' if made else ' (up to date)'}; use them with `f3prune generate {run} --reuse`"
    )


@click.command(short_help="Compare engine, pruned and dense.")
@shared.RUN
@click.option(
    "--reference",
    type=click.Choice(["pruned", "dense"]),
    default="pruned",
    show_default=True,
    help="Compare the engine with the pruned model, or also the pruned model with the dense one.",
)
@click.option(
    "--max-rel-l2",
    type=shared.BoundedFloat(0.0, meaning="a relative L2 distance"),
    help="Bound of the distance to the reference. [default: rounding of the precision for pruned, none for dense]",
)
@click.option(
    "--videos/--no-videos",
    default=True,
    show_default=True,
    help="Also let each model generate a video by itself, and compare those.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the numbers to this file.")
def check(run: Path, reference: str, max_rel_l2: float | None, videos: bool, json_file: Path | None) -> None:
    """Compare the engine with PyTorch; exit 1 when it fails."""
    if json_file is not None and json_file.is_dir():
        raise InputError(f"--json {json_file} is a directory: give a file name")
    with opened(run) as (directory, reporter):
        from f3prune.steps.check import check as step

        report = step(directory, reference, max_rel_l2, reporter, videos)  # type: ignore[arg-type]
    if json_file is not None:
        from f3prune.core.atomic_files import atomic_write

        with atomic_write(json_file) as temporary:
            temporary.write_text(report.to_json(), encoding="utf-8")
    from f3prune.cli.tables import coupling_table, parity_table, show

    show(parity_table(report), *([coupling_table(report)] if report.coupling else []))
    report.require()
    click.echo("check passed")


@click.command("run", short_help="All of the above, resumable.")
@shared.MODEL
@shared.OUTPUT_RUN
@shared.PRUNING
@shared.CALIBRATION
@shared.EXPORTING
@shared.BACKEND
@shared.CAPABILITIES
@click.option("--prompt", help="Prompt of the demonstration video. [default: the first calibration prompt]")
def run_command(
    model: str,
    run: Path,
    prompts: Path | None,
    num_prompts: int | None,
    rows: int | None,
    sites: SiteKind,
    random_weights: bool,
    dtype: str,
    opset: int | None,
    dynamic: tuple[str, ...] | None,
    backend: str,
    capabilities: tuple[str, ...],
    prompt: str | None,
    **values: Any,
) -> None:
    """Calibrate, prune, export, build, generate, check, bench and report; what is up to date is not made again."""
    check_pruning(values)
    with written(run) as (directory, reporter):
        from f3prune.cli.common import build_config, export_config, prune_config
        from f3prune.steps.calibrate import CalibrateOptions
        from f3prune.workflow import RunOptions, run_all

        options = RunOptions(
            CalibrateOptions(model, prompts, num_prompts, settings_from(values), rows, random_weights, sites),
            prune_config(values),
            export_config(dtype, opset, dynamic),
            build_config(backend, capabilities),
            prompt=prompt,
        )
        summary = run_all(directory, options, reporter)
    from f3prune.cli.tables import show, summary_table

    show(summary_table(summary, directory.path))


@click.command(short_help="Write the HTML report.")
@shared.RUN
def report(run: Path) -> None:
    """Write report.json and one self-contained report.html from what the run holds."""
    with opened(run) as (directory, reporter):
        from f3prune.report.build import report as step

        path, made = step(directory, reporter)
    click.echo(f"{path}{'' if made else ' (up to date)'}")


COMMANDS = (reuse, generate, check, run_command, report)
