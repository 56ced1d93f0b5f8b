"""What a message tells to do is done, and what was refused before then works: a table of what takes no time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f3prune.bench.contenders.engine import Engine
from f3prune.bench.contest import ContestOptions
from f3prune.bench.costs.published import PUBLISHED, published
from f3prune.calibration import PruneConfig, SiteMask
from f3prune.calibration.replacements import Local, replacement_of
from f3prune.cli.options.pruning import check_pruning
from f3prune.core.errors import F3PruneError
from f3prune.core.places import refuse_to_replace
from f3prune.core.run_directory import RunDirectory
from f3prune.engines import BuildConfig
from f3prune.exporter import ExportConfig, flatten_arguments
from f3prune.exporter._axes import symbolic_axes
from f3prune.models import CogVideoConfig
from f3prune.models.cogvideo.text import WordTokenizer
from f3prune.models.cogvideo.vq import PatchVQ
from f3prune.pipelines import video
from f3prune.pipelines.prompts import Prompt, read_prompts, take
from f3prune.pipelines.sources import resolve
from f3prune.quality._estimates import draws, percentiles
from f3prune.quality.datasets._captions import captions
from f3prune.quality.datasets._files import draw, videos_under
from f3prune.quality.datasets._ucf101 import ucf101
from f3prune.quality.measured import measure
from f3prune.quality.metrics._build import build_metrics
from f3prune.quality.samples import samples_of
from f3prune.steps import convert, tune

TENSORS = {"hidden_states": torch.zeros(2, 4), "timestep": torch.zeros(2)}
VIDEO = np.zeros((3, 8, 8, 3), dtype=np.float32)
MASK = ("temporal", 3, 2, (0.0, 0.0), (0, 1))
OPTIONS = dict.fromkeys(("alpha", "speedup", "mode", "window", "pool", "refit_generations", "refit"))


def asked(**given: Any) -> None:
    """``check_pruning`` of the command line's options, the others as they are by default."""
    check_pruning({**OPTIONS, "granularity": "layer", "aggregate": "timesteps", "alpha": 0.5, **given})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Files and directories that messages speak of."""
    for name in ("empty", "full", "clips/Archery", "captioned", "denoiser", "odd", "pipeline/transformer"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("file", "full/other", "clips/Archery/a.avi", "captioned/a.mp4", "captioned/notes.xml"):
        (tmp_path / name).write_text("x")
    (tmp_path / "latin.txt").write_bytes("sch\xf6n".encode("latin-1"))
    (tmp_path / "utf8.txt").write_text("sch\xf6n", encoding="utf-8")
    (tmp_path / "prompts.doc").write_text("a cat")
    (tmp_path / "captioned" / "one.jsonl").write_text('{"file": "a.mp4", "caption": "a cat"}\n')
    (tmp_path / "denoiser" / "config.json").write_text('{"_class_name": "WanTransformer3DModel"}')
    (tmp_path / "odd" / "config.json").write_text("{}")
    (tmp_path / "pipeline" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (tmp_path / "pipeline" / "transformer" / "config.json").write_text('{"_class_name": "WanTransformer3DModel"}')
    (tmp_path / "stopped.tuning.safetensors").write_text("x")
    return tmp_path


REMEDIES: list[tuple[str, Callable[[Path], Any], str, list[Callable[[Path], Any]]]] = [
    (
        "candidates",
        lambda p: PruneConfig(0.5, mode="local", candidates=("drop",)),
        "leave it out, or use `mode='auto'`",
        [lambda p: PruneConfig(0.5, mode="local"), lambda p: PruneConfig(0.5, mode="auto", candidates=("drop",))],
    ),
    (
        "whole heads",
        lambda p: PruneConfig(0.5, "frame-pair", mode="static"),
        "use `mode='local'`",
        [lambda p: PruneConfig(0.5, "frame-pair", mode="local")],
    ),
    (
        "units of auto",
        lambda p: PruneConfig(0.5, "head", mode="auto"),
        "leave it out, or choose a mode",
        [lambda p: PruneConfig(0.5, mode="auto"), lambda p: PruneConfig(0.5, "head", mode="local")],
    ),
    (
        "default mode",
        lambda p: PruneConfig(0.5).replacement,
        "give `mode`",
        [lambda p: PruneConfig(0.5, mode="drop").replacement],
    ),
    (
        "weights of pairs",
        lambda p: PruneConfig(0.5, "frame-pair", score="magnitude"),
        "use `granularity='layer'` or `'head'`, or `score='aas'`",
        [
            lambda p: PruneConfig(0.5, "layer", score="magnitude"),
            lambda p: PruneConfig(0.5, "head", score="magnitude"),
            lambda p: PruneConfig(0.5, "frame-pair", score="aas"),
        ],
    ),
    (
        "nothing in place",
        lambda p: SiteMask(*MASK),  # type: ignore[arg-type]
        "give it a replacement",
        [lambda p: SiteMask(*MASK, replacement=Local())],  # type: ignore[arg-type]
    ),
    (
        "option of a mode",
        lambda p: replacement_of("local", window=1),
        "leave window out, or choose another mode",
        [lambda p: replacement_of("local"), lambda p: replacement_of("window", window=1)],
    ),
    (
        "bfloat16",
        lambda p: ExportConfig("bf16", opset=20),
        "use 22 or later for bf16",
        [lambda p: ExportConfig("bf16", opset=22)],
    ),
    (
        "no text",
        lambda p: symbolic_axes(TENSORS, "hidden_states", None, ("batch", "text")),
        "use `dynamic=('batch',)`",
        [lambda p: symbolic_axes(TENSORS, "hidden_states", None, ("batch",))],
    ),
    (
        "an argument",
        lambda p: flatten_arguments({**TENSORS, "scale": object()}),
        "pass tensors, numbers, strings, or tuples and dicts of them",
        [lambda p: flatten_arguments({**TENSORS, "scale": {"a": (1, "b", TENSORS["timestep"])}})],
    ),
    (
        "ahead of time",
        lambda p: BuildConfig(compute_capabilities=("8.9",)),
        "leave them out, or use that",
        [lambda p: BuildConfig(), lambda p: BuildConfig(backend="tensorrt-rtx", compute_capabilities=("8.9",))],
    ),
    ("threads", lambda p: BuildConfig(threads=-1), "give 0 for the default", [lambda p: BuildConfig(threads=0)]),
    (
        "no range",
        lambda p: BuildConfig().range_of("frames"),
        "give BuildConfig(ranges={'frames': (min, opt, max)})",
        [lambda p: BuildConfig(ranges={"frames": (1, 8, 16)}).range_of("frames")],
    ),
    (
        "steps skipped",
        lambda p: Engine(skip=1.5),
        "give a share of the steps, at least 0 and below 1",
        [lambda p: Engine(skip=0.0), lambda p: Engine(skip=0.9)],
    ),
    (
        "steps of a contest",
        lambda p: ContestOptions(skips=(2.0,)),
        "give shares of the steps between 0 and 1, e.g. 0.2,0.5",
        [lambda p: ContestOptions(skips=(0.2, 0.5))],
    ),
    (
        "published",
        lambda p: published("published:nothing"),
        f"choose one of published:{next(iter(PUBLISHED))}",
        [lambda p: [published(f"published:{name}") for name in PUBLISHED]],
    ),
    (
        "ratio and speed-up",
        lambda p: asked(speedup=1.2, mode="auto"),
        "--alpha: give one of them",
        [lambda p: asked(), lambda p: asked(alpha=None, speedup=1.2, mode="auto")],
    ),
    (
        "speed-up of a mode",
        lambda p: asked(alpha=None, speedup=1.2, mode="drop"),
        "leave it out, or use --mode auto",
        [lambda p: asked(mode="drop"), lambda p: asked(alpha=None, speedup=1.2, mode="auto")],
    ),
    (
        "patches of no mode",
        lambda p: asked(pool=2),
        "give the mode too, e.g. --mode pooled",
        [lambda p: asked(pool=2, mode="pooled")],
    ),
    (
        "patches of auto",
        lambda p: asked(pool=2, mode="auto"),
        "leave --window and --pool out",
        [lambda p: asked(mode="auto")],
    ),
    (
        "one mask of layers",
        lambda p: asked(aggregate="layers"),
        "use --granularity head or frame-pair, or --aggregate timesteps",
        [
            lambda p: asked(aggregate="layers", granularity="head"),
            lambda p: asked(aggregate="layers", granularity="frame-pair"),
            lambda p: asked(aggregate="timesteps"),
        ],
    ),
    (
        "generations of no refit",
        lambda p: asked(refit_generations=2),
        "give both, or leave it out",
        [lambda p: asked(refit_generations=2, refit=True), lambda p: asked()],
    ),
    (
        "refit of pairs",
        lambda p: asked(refit=True, granularity="frame-pair"),
        "leave it out, or use --granularity layer or head",
        [lambda p: asked(granularity="frame-pair"), lambda p: asked(refit=True, granularity="head")],
    ),
    (
        "pairs of a mode",
        lambda p: asked(mode="drop", granularity="frame-pair"),
        "use --mode local, or --granularity layer or head",
        [lambda p: asked(mode="local", granularity="frame-pair"), lambda p: asked(mode="drop", granularity="head")],
    ),
    (
        "a directory for a file",
        lambda p: refuse_to_replace(p / "empty"),
        "give another name",
        [lambda p: refuse_to_replace(p / "another")],
    ),
    (
        "a path through a file",
        lambda p: refuse_to_replace(p / "file" / "inside"),
        "give another place",
        [lambda p: refuse_to_replace(p / "empty" / "inside")],
    ),
    (
        "somebody's directory",
        lambda p: refuse_to_replace(p / "full", folder=True, own="manifest.json"),
        "move them, or give another name",
        [
            lambda p: refuse_to_replace(p / "another", folder=True, own="manifest.json"),
            lambda p: [
                (p / "full" / "other").unlink(),
                refuse_to_replace(p / "full", folder=True, own="manifest.json"),
            ],
        ],
    ),
    (
        "a run in a file",
        lambda p: RunDirectory.create(p / "file"),
        "give another",
        [lambda p: RunDirectory.create(p / "run")],
    ),
    (
        "a run among files",
        lambda p: RunDirectory.create(p / "full"),
        "give a new or an empty directory",
        [lambda p: RunDirectory.create(p / "new"), lambda p: RunDirectory.create(p / "empty")],
    ),
    (
        "kind of prompts",
        lambda p: read_prompts(p / "prompts.doc"),
        "give a .txt file (a prompt per line) or a .jsonl file",
        [lambda p: read_prompts((p / "prompts.doc").rename(p / "prompts.txt"))],
    ),
    (
        "encoding of prompts",
        lambda p: read_prompts(p / "latin.txt"),
        "save it as UTF-8",
        [lambda p: read_prompts(p / "utf8.txt")],
    ),
    (
        "number of prompts",
        lambda p: take([Prompt("a")], 2, "it"),
        "give at most 1",
        [lambda p: take([Prompt("a")], 1, "it")],
    ),
    (
        "a model without class",
        lambda p: resolve(str(p / "odd"), random_weights=True),
        "give a denoiser's directory as diffusers' save_pretrained writes it",
        [lambda p: resolve(str(p / "denoiser"), random_weights=True)],
    ),
    (
        "a model in a file",
        lambda p: resolve(str(p / "denoiser" / "config.json"), random_weights=True),
        "give the directory of a diffusers pipeline or of a denoiser",
        [lambda p: resolve(str(p / "denoiser"), random_weights=True)],
    ),
    (
        "no model",
        lambda p: resolve(str(p / "nothing" / "at" / "all")),
        "a hub id (organisation/name) or zoo:NAME",
        [lambda p: resolve("zoo:digits")],
    ),
    (
        "random weights",
        lambda p: resolve(str(p / "pipeline"), random_weights=True),
        "pipeline/transformer, or leave the option out",
        [lambda p: resolve(str(p / "pipeline" / "transformer"), random_weights=True)],
    ),
    (
        "a directory of no video",
        lambda p: video.check_output(p / "full"),
        "give a new one, or a file name such as out.mp4",
        [lambda p: video.check_output(p / "new"), lambda p: video.check_output(p / "full" / "out.mp4")],
    ),
    (
        "frames in a file",
        lambda p: video.check_output(p / "file"),
        "give .mp4, .gif, or a directory for PNG frames",
        [lambda p: [video.check_output(p / name) for name in ("a.mp4", "a.gif", "empty")]],
    ),
    (
        "a place for weights",
        lambda p: convert.check_output(p / "full"),
        "give a new directory",
        [lambda p: convert.check_output(p / "new")],
    ),
    (
        "no checkpoint",
        lambda p: tune.check_output(p / "new", resume=True),
        "leave `resume` out to start",
        [lambda p: tune.check_output(p / "new", resume=False)],
    ),
    (
        "a checkpoint",
        lambda p: tune.check_output(p / "stopped", resume=False),
        "give `resume=True`, or remove the file",
        [
            lambda p: tune.check_output(p / "stopped", resume=True),
            lambda p: [
                (p / "stopped.tuning.safetensors").unlink(),
                tune.check_output(p / "stopped", resume=False),
            ],
        ],
    ),
    ("resamples", lambda p: draws(0, 3, 0), "give at least one of each", [lambda p: draws(1, 1, 0)]),
    (
        "confidence",
        lambda p: percentiles(np.arange(3.0), 95),
        "give one between 0 and 1, such as 0.95",
        [lambda p: percentiles(np.arange(3.0), 0.95)],
    ),
    (
        "videos",
        lambda p: videos_under(p / "nothing"),
        "give the directory that holds the videos",
        [lambda p: videos_under(p / "clips")],
    ),
    (
        "samples",
        lambda p: draw([1, 2], 3, 0, p),
        "give 1 to 2 samples",
        [lambda p: [draw([1, 2], n, 0, p) for n in (1, 2)]],
    ),
    (
        "classes",
        lambda p: ucf101(p / "clips" / "Archery", 1, 0),
        "give the one above it",
        [lambda p: ucf101(p / "clips", 1, 0)],
    ),
    (
        "captions",
        lambda p: captions(p / "captioned", p / "captioned" / "notes.xml"),
        "give a .json, .csv, .tsv or .jsonl file",
        [lambda p: captions(p / "captioned", p / "captioned" / "one.jsonl")],
    ),
    (
        "metrics twice",
        lambda p: build_metrics(("psnr", "psnr")),
        "give each once",
        [lambda p: build_metrics(("psnr",))],
    ),
    ("a metric", lambda p: build_metrics(("beauty",)), "choose from ", [lambda p: build_metrics(("psnr", "ssim"))]),
    (
        "prompts of samples",
        lambda p: samples_of([], 1, 0),
        "give `prompts` with at least one",
        [lambda p: samples_of([Prompt("a")], 1, 0)],
    ),
    (
        "reference",
        lambda p: measure([VIDEO], ["a"], build_metrics(("psnr",))),
        "give them as reference",
        [lambda p: measure([VIDEO], ["a"], build_metrics(("psnr",)), reference=[VIDEO])],
    ),
    (
        "videos and prompts",
        lambda p: measure([VIDEO], ["a", "b"], build_metrics(("dynamic",))),
        "give one each",
        [lambda p: measure([VIDEO, VIDEO], ["a", "b"], build_metrics(("dynamic",)))],
    ),
    (
        "heads of CogVideo",
        lambda p: CogVideoConfig(hidden_size=30, num_attention_heads=4),
        "choose a multiple",
        [lambda p: CogVideoConfig(hidden_size=32, num_attention_heads=4)],
    ),
    (
        "words twice",
        lambda p: WordTokenizer(["a", "a"], 4, 3),
        "give every word once",
        [lambda p: WordTokenizer(["a", "b"], 4, 3)],
    ),
    (
        "patches of an image",
        lambda p: PatchVQ(image_size=30),
        "choose one that is",
        [lambda p: PatchVQ(image_size=32, width=8)],
    ),
]


@pytest.mark.parametrize(
    ("wrong", "said", "mended"), [case[1:] for case in REMEDIES], ids=[case[0] for case in REMEDIES]
)
def test_what_a_message_asks_for_is_taken(
    place: Path, wrong: Callable[[Path], Any], said: str, mended: list[Callable[[Path], Any]]
) -> None:
    with pytest.raises(F3PruneError) as caught:
        wrong(place)
    assert said in str(caught.value)
    for remedy in mended:
        remedy(place)
