"""Option types and the options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from f3prune.core.choices import AGGREGATES, BACKENDS, DTYPES, DYNAMIC, GRANULARITIES, score_names, shipped_modes

METRICS = (
    "psnr",
    "ssim",
    "lpips",
    "flicker",
    "warping",
    "dynamic",
    "clipsim",
    "prompt_digit",
    "prompt_motion",
    "fvd",
    "fid",
)
MAX_SEED = 2**63 - 1

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


class BoundedFloat(click.ParamType[Any]):
    """A finite number in a closed range."""

    name = "number"

    def __init__(self, low: float, high: float = math.inf, meaning: str = "a number") -> None:
        self.low, self.high, self.meaning = low, high, meaning

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; NaN and infinities fail like any other number outside the range."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and self.low <= number <= self.high):
            bounds = f"at least {self.low:g}" if self.high == math.inf else f"between {self.low:g} and {self.high:g}"
            self.fail(f"{value} is not {self.meaning} {bounds}", param, ctx)
        return number


class Fractions(click.ParamType[Any]):
    """Comma-separated numbers from 0 to 1; ``none`` where none at all has a meaning."""

    name = "fractions"

    def __init__(self, meaning: str, may_be_none: bool = False) -> None:
        self._one, self._may_be_none = BoundedFloat(0.0, 1.0, meaning), may_be_none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parse; every one must be such a number."""
        if isinstance(value, tuple):
            return value
        if self._may_be_none and value == "none":
            return ()
        return tuple(self._one.convert(text.strip(), param, ctx) for text in str(value).split(",") if text.strip())


class Alpha(BoundedFloat):
    """A pruning ratio, or ``auto`` for the largest within a budget."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse; ``auto`` stays as it is."""
        return value if value == "auto" else super().convert(value, param, ctx)


class NameList(click.ParamType[Any]):
    """Comma-separated names out of a fixed set."""

    name = "names"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse; an empty text means none of them."""
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(",") if name.strip())
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is not one of {', '.join(self.known)}", param, ctx)
        return names


class Mode(click.ParamType[Any]):
    """What takes a pruned unit's place, with its options behind colons: ``pooled:4:1``; ``auto`` where it may be."""

    name = "mode"

    def __init__(self, auto: bool = False) -> None:
        self.known = (*shipped_modes(), *(["auto"] if auto else []))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form; what options a mode has is checked when it is used."""
        name, *options = str(value).split(":")
        if name not in self.known or not all(option.isdecimal() for option in options):
            self.fail(f"{value!r} is not one of {', '.join(self.known)}", param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """All of them."""
        return f"[{'|'.join(self.known)}]"


class ModeList(NameList):
    """Comma-separated modes."""

    def __init__(self) -> None:
        super().__init__(shipped_modes())
        self._one = Mode()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse; every one must be a mode."""
        if isinstance(value, tuple):
            return value
        return tuple(self._one.convert(text.strip(), param, ctx) for text in str(value).split(",") if text.strip())


class Capability(click.ParamType[Any]):
    """A GPU's compute capability, ``8.9``."""

    name = "capability"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the form."""
        major, dot, minor = str(value).partition(".")
        if not (dot and major.isdigit() and minor.isdigit()):
            self.fail(f"{value!r} is not written major.minor, e.g. 8.9 (RTX 40) or 12.0 (RTX 50)", param, ctx)
        return str(value)


def stack(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


RUN = click.argument("run", type=click.Path(path_type=Path))
MODEL = click.argument("model")
OUTPUT_RUN = click.option(
    "-o", "--output", "run", type=click.Path(path_type=Path), required=True, help="Run directory to write."
)
COUNT = click.IntRange(min=1)

SIZES = stack(
    click.option("--num-frames", type=COUNT, help="Video frames. [default: the model's own]"),
    click.option("--height", type=COUNT, help="Pixels; latent units for a denoiser alone. [default: the model's own]"),
    click.option("--width", type=COUNT, help="Pixels; latent units for a denoiser alone. [default: the model's own]"),
)
SEED = click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), default=0, show_default=True, help="Prompt number k runs with seed + k."
)
STEPS = click.option("--steps", type=COUNT, help="Denoising steps. [default: the model's own]")
GUIDANCE = click.option(
    "--guidance", type=BoundedFloat(0.0, meaning="a guidance scale"), help="Guidance scale. [default: the model's own]"
)
LATENTS = click.option(
    "--latents",
    type=click.Choice(("inverted", "random")),
    help="Start from those of the clip that MODEL was tuned on, or from noise. [default: noise, or calibration's]",
)
CALIBRATION = stack(
    click.option(
        "--prompts",
        type=click.Path(path_type=Path),
        help="A .txt file, one prompt per line, or a .jsonl file. [default: the model's own list]",
    ),
    click.option("--num-prompts", type=COUNT, help="Use the first so many prompts. [default: all of them]"),
    STEPS,
    GUIDANCE,
    SIZES,
    SEED,
    LATENTS,
    click.option("--rows", type=COUNT, help="Estimate from so many query tokens per frame. [default: measure all]"),
    click.option(
        "--sites",
        type=click.Choice(("temporal", "sparse-causal", "all")),
        default="temporal",
        show_default=True,
        help="Which attention is measured, and may be pruned; sparse-causal is Tune-A-Video's between frames.",
    ),
    click.option("--random-weights", is_flag=True, help="For a denoiser's config.json without weights: seeded ones."),
)
PRUNING = stack(
    click.option(
        "--alpha",
        type=Alpha(0.0, 1.0, "a pruning ratio"),
        help="Pruning ratio: the share of units that goes; with --mode auto the share of the sites' multiplications. "
        "`f3prune prune` also takes auto, with --budget. Required, unless --speedup is given.",
    ),
    click.option(
        "--granularity", type=click.Choice(GRANULARITIES), default="layer", show_default=True, help="The unit."
    ),
    click.option(
        "--aggregate",
        type=click.Choice(AGGREGATES),
        default="timesteps",
        show_default=True,
        help="Sum scores over timesteps, or over layers too so that all share one mask.",
    ),
    click.option(
        "--mode",
        type=Mode(auto=True),
        default="local",
        show_default=True,
        help="What takes a pruned unit's place: attention to its own frame (local), to its own frame and those beside "
        "it (window), or to other frames in patches (pooled); for temporal attention its mean map (static); or nothing "
        "(drop). auto chooses one for every layer, or none, by what the output loses and what is saved.",
    ),
    click.option(
        "--speedup",
        type=BoundedFloat(1.0, meaning="a speed-up"),
        help="With --mode auto, in place of --alpha: what the products of a whole call are to gain.",
    ),
    click.option(
        "--candidates",
        type=ModeList(),
        default="",
        help="Modes that --mode auto chooses from, e.g. static,pooled:2:1. [default: all that suit]",
    ),
    click.option("--window", type=COUNT, help="Frames that --mode window or pooled sees whole on each side."),
    click.option("--pool", type=COUNT, help="Height and width of a patch of --mode pooled, in tokens."),
    click.option(
        "--score",
        type=click.Choice(score_names()),
        help="What units are ranked by, the least first: what the output loses without the unit, the same again after "
        "every unit that went (greedy: N/2 times as slow for N units), or attention to other frames (aas, which is "
        "free); magnitude, random and reversed are there to compare with. [default: leave-one-out; aas for frame "
        "pairs]",
    ),
    click.option("--score-seed", type=click.IntRange(min=0), default=0, help="Seed of --score random."),
    click.option("--stages", type=COUNT, default=1, show_default=True, help="Ranges of steps with masks of their own."),
    click.option("--protect", multiple=True, metavar="GLOB", help="Sites that are never pruned; may be repeated."),
)
EXPORTING = stack(
    click.option(
        "--dtype", type=click.Choice(DTYPES), default="fp32", show_default=True, help="Precision of the graph."
    ),
    click.option("--opset", type=click.IntRange(18, 23), help="ONNX opset. [default: the exporter's own]"),
    click.option(
        "--dynamic",
        type=NameList(DYNAMIC),
        help="Symbolic dimensions, of batch,text. [default: batch, and text where prompts differ in length]",
    ),
)
BACKEND = click.option(
    "--backend", type=click.Choice(BACKENDS), default="onnxruntime", show_default=True, help="What runs the graph."
)
CAPABILITIES = click.option(
    "--compute-capability",
    "capabilities",
    multiple=True,
    type=Capability(),
    help="GPU that a TensorRT-RTX engine is compiled for, e.g. 8.9; may be repeated. [default: all]",
)
DATASETS = ("ucf101", "captions")
RUNNERS = ("engine", "torch")
JUDGING = stack(
    click.option("--samples", type=COUNT, default=64, show_default=True, help="Videos of every variant."),
    click.option("--dataset", type=click.Choice(DATASETS), help="Real videos: class folders, or a caption file."),
    click.option("--root", type=click.Path(path_type=Path), help="Directory of the dataset."),
    click.option("--captions", type=click.Path(path_type=Path), help="Caption file of --dataset captions."),
    click.option("--lpips", type=click.Path(path_type=Path), help="AlexNet weights or a TorchScript LPIPS."),
    click.option("--clip", type=click.Path(path_type=Path), help="Directory of a CLIP model, for clipsim."),
    click.option("--fvd", type=click.Path(path_type=Path), help="TorchScript video network (I3D), for FVD."),
    click.option("--fid", type=click.Path(path_type=Path), help="TorchScript image network (Inception), for FID."),
)
JUDGED_BY = stack(
    click.option("--seed", type=click.IntRange(0, MAX_SEED), help="Of the first sample. [default: the run's]"),
    click.option(
        "--prompts", type=click.Path(path_type=Path), help="A .txt or .jsonl file. [default: the model's own]"
    ),
    click.option(
        "--metrics",
        type=NameList(METRICS),
        help=f"Some of {','.join(METRICS)}. [default: all that can be measured with what was given]",
    ),
    click.option("--runner", type=click.Choice(RUNNERS), help="[default: the engine if one is built, else PyTorch]"),
    click.option("--resamples", type=click.IntRange(100), default=1000, show_default=True, help="Of the bootstrap."),
)
