"""What a model's variants are judged by: metrics, their networks, the real videos they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from f3prune.calibration import Masks
from f3prune.core.atomic_files import atomic_directory, canonical_json, digest_of_files, sha256_file, sha256_text
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.places import read_regular
from f3prune.core.progress import SILENT, Reporter
from f3prune.pipelines.pipeline_runs import Frames
from f3prune.pipelines.prompts import Prompt, read_prompts
from f3prune.quality.compare import Measured, measure
from f3prune.quality.datasets import RealVideo, captions, decode, ucf101
from f3prune.quality.measured import ARRAYS, META
from f3prune.quality.metrics import INFO, DistanceMetric, Networks, build_metrics, request_of
from f3prune.quality.samples import Sample, samples_of, zoo_samples
from f3prune.quality.variants import Runner, Variant, generate_missing, recipe_of
from f3prune.quality.video_store import VideoStore
from f3prune.steps._state import RunState, need_pipeline
from f3prune.steps.calibrate import CalibrateOptions, choose_prompts

FOLDER = "videos"
"""Where in a run generated videos and what was measured on them are kept."""
ALWAYS = ("psnr", "ssim", "flicker", "warping", "dynamic")
ZOO_SEED = 7_000_000
"""First seed of the requests that zoo models are judged on; their cards use other ones."""
ZOO_REAL = 500
"""Real clips of the zoo that distances are measured to."""
Dataset = Literal["ucf101", "captions"]


@dataclass(frozen=True)
class JudgeOptions:
    """What is generated, and what it is judged by.

    Attributes:
        samples: videos of every variant; of a dataset, also the number of real ones.
        seed: of the first sample; None takes the run's own, or for the zoo seeds that serve nothing else.
        prompts: a ``.txt`` or ``.jsonl`` file instead of calibration's prompts.
        dataset, root, captions: real videos with their prompts, see ``f3prune.quality.datasets``.
        metrics: names; None takes all that can be measured with what was given.
        lpips, clip, fvd, fid: networks, see ``f3prune.quality.metrics.Networks``.
        runner: None takes the engine if one is built, else PyTorch.
        resamples: of the bootstrap.
    """

    samples: int = 64
    seed: int | None = None
    prompts: Path | None = None
    dataset: Dataset | None = None
    root: Path | None = None
    captions: Path | None = None
    metrics: tuple[str, ...] | None = None
    lpips: Path | None = None
    clip: Path | None = None
    fvd: Path | None = None
    fid: Path | None = None
    runner: Runner | None = None
    resamples: int = 1000

    def __post_init__(self) -> None:
        """Raises ``InputError`` for options that do not fit together."""
        if (self.dataset is None) != (self.root is None):
            raise InputError("`dataset` and `root` belong together: give the kind of dataset and its directory")
        if self.dataset is not None and self.prompts is not None:
            raise InputError("`prompts` and `dataset` exclude each other: the dataset has prompts of its own")
        unknown = [name for name in self.metrics or () if name not in INFO]
        if unknown:
            raise InputError(f"there is no metric {unknown[0]!r}, expected some of {', '.join(INFO)}")


class Judging:
    """One set of samples and metrics for all variants of a run's model; everything measured is kept in the run.

    Attributes:
        samples: prompts and seeds.
        names: of the metrics.
        key: SHA-256 of samples, metrics, networks and real videos.

    Raises:
        InputError: a denoiser alone, a dataset that cannot be used, a metric that lacks its network.
    """

    def __init__(self, state: RunState, options: JudgeOptions, reporter: Reporter = SILENT) -> None:
        need_pipeline(state, "make videos")
        self.state, self.options, self._reporter = state, options, reporter
        self._real_videos: list[RealVideo] = []
        self._enough = False
        self.samples = self._samples()
        zoo = bool(zoo_samples(state.source, 1, 0)) and options.dataset is None
        networks: dict[str, Any] = {name: getattr(options, name) for name in ("lpips", "clip", "fvd", "fid")}
        if zoo:
            from f3prune.zoo import features

            own = features.load()
            networks = {**networks, "fvd": networks["fvd"] or own, "fid": networks["fid"] or own}
        self._zoo = zoo
        self.names = options.metrics or tuple(self._measurable(networks))
        self._has_real = zoo or bool(self._real_videos)
        distances = [name for name in self.names if INFO[name].kind == "distance"]
        if distances and not self._has_real:
            raise InputError(
                f"{distances[0]} is a distance to real videos, and there are none: give `dataset` and `root`, or leave "
                f"it out of `metrics`"
            )
        self._metrics = build_metrics(self.names, Networks(**networks))
        files = {name: _hashes(path) for name, path in networks.items() if isinstance(path, Path)}
        with reporter.task("checking files"):
            self._real_hashes = [sha256_file(video.path) for video in self._real_videos]
        asked = [sample.to_json() for sample in self.samples]
        self.key = sha256_text(canonical_json([list(self.names), files, asked, self._real_hashes]))

    def _samples(self) -> list[Sample]:
        options = self.options
        if options.dataset is not None and options.root is not None:
            if options.dataset == "ucf101":
                self._real_videos = ucf101(options.root, options.samples, options.seed or 0)
            else:
                self._real_videos = captions(options.root, options.captions, options.samples, options.seed or 0)
            seed = self.state.settings.seed if options.seed is None else options.seed
            return samples_of([Prompt(video.prompt) for video in self._real_videos], len(self._real_videos), seed)
        if options.prompts is None:
            seed = ZOO_SEED if options.seed is None else options.seed
            found = zoo_samples(self.state.source, options.samples, seed)
            if found is not None:
                return found
            prompts = choose_prompts(self.state.source, CalibrateOptions(self.state.source.spec))
        else:
            prompts = read_prompts(options.prompts)
        seed = self.state.settings.seed if options.seed is None else options.seed
        return samples_of(prompts, options.samples, seed)

    def _measurable(self, networks: dict[str, Any]) -> Iterator[str]:
        yield from ALWAYS
        if self._zoo:
            wanted = [request_of(sample.prompt.text) for sample in self.samples]
            if any(request.digit is not None for request in wanted):
                yield "prompt_digit"
            if any(request.direction is not None for request in wanted):
                yield "prompt_motion"
        for name, network in (("lpips", "lpips"), ("clipsim", "clip"), ("fvd", "fvd"), ("fid", "fid")):
            if networks[network] is not None:
                yield name

    # -- measuring ---------------------------------------------------------------------------------------------------

    def dataset_facts(self) -> dict[str, Any]:
        """The ``dataset`` entry of ``evaluation.json``."""
        options = self.options
        name = options.dataset or (self.state.source.spec if self._zoo else "prompts")
        return {
            "name": name,
            "root": None if options.root is None else str(options.root),
            "prompts": len({sample.prompt.text for sample in self.samples}),
            "samples": len(self.samples),
            "real": len(self._real_videos) or (ZOO_REAL if self._zoo else 0),
        }

    def store(self, variant: Variant) -> VideoStore:
        """The variant's videos, generated as far as they were asked for."""
        recipe = recipe_of(self.state, variant, self.samples)
        name = "dense" if variant.masks is None else variant.masks.digest[:16]
        return VideoStore(self._folder(f"{name}-{variant.runner}"), len(self.samples), recipe)

    def dense(self, runner: Runner) -> Measured:
        """The dense model, without the metrics that compare with it."""
        variant = Variant(None, runner)
        store = self.store(variant)
        said = "generating with the dense model"
        generate_missing(self.state, variant, self.samples, store, said, self._reporter, self._refuse_too_few)
        return self._kept(f"dense-{runner}", store.digest, lambda: self._measure(store, None))

    def _refuse_too_few(self, video: Frames) -> None:
        """Before hours go into videos: whether so many are enough for a covariance of a network's features.

        Raises:
            InputError: they are not, or a network does not take the model's videos.
        """
        for metric in () if self._enough else self._metrics:
            if isinstance(metric, DistanceMetric):
                rows, width = metric.rows(video).shape
                needed = -(-(width + 1) // rows)
                if len(self.samples) < needed:
                    name = metric.info.name
                    raise InputError(
                        f"{name} compares covariances of {width} features, for which {needed} videos are needed, and "
                        f"`samples` is {len(self.samples)}: give more, or `metrics` without {name}"
                    )
        self._enough = True

    def pruned(self, variant: Variant, keep: bool = True) -> Measured:
        """A pruned variant, measured beside the dense one.

        Args:
            variant: with masks.
            keep: leave its videos in the run.
        """
        if variant.masks is None:
            raise InputError("the dense model is no pruned variant: measure it with dense()")
        reference = self.store(Variant(None, variant.runner))
        name, recipe = self._place(variant, variant.masks)
        if (found := self._load(name, recipe)) is not None:
            return found
        store = self.store(variant)
        generate_missing(self.state, variant, self.samples, store, "generating with the pruned model", self._reporter)
        measured = self._kept(name, recipe, lambda: self._measure(store, reference))
        if not keep:
            store.remove()
        return measured

    def has(self, variant: Variant) -> bool:
        """Whether ``pruned`` has the variant measured already."""
        if variant.masks is None:
            return False
        return self._load(*self._place(variant, variant.masks)) is not None

    def _place(self, variant: Variant, masks: Masks) -> tuple[str, str]:
        """Where a variant's measurement is kept, and what it is made from."""
        reference = self.store(Variant(None, variant.runner))
        recipe = recipe_of(self.state, variant, self.samples)
        return f"{masks.digest[:16]}-{variant.runner}", sha256_text(canonical_json([recipe, reference.digest]))

    def real(self) -> Measured | None:
        """The real videos' features; None where no metric asks for them."""
        names = [name for name in self.names if INFO[name].kind == "distance"]
        if not names:
            return None
        shape = self.store(self._dense_variant())[0].shape
        metrics = [metric for metric in self._metrics if metric.info.kind == "distance"]
        if self._zoo:
            videos: Any = _zoo_clips(shape[0])
            prompts = [""] * ZOO_REAL
            source: Any = "zoo"
        else:
            videos = (decode(video, shape[0], shape[1], shape[2]) for video in self._real_videos)
            prompts = [video.prompt for video in self._real_videos]
            source = self._real_hashes
        digest = sha256_text(canonical_json([source, list(shape), self.key]))

        def make() -> Measured:
            with self._reporter.task("measuring the real videos", total=len(prompts)) as advance:
                return measure(videos, prompts, metrics, advance=advance)

        return self._kept("real", digest, make)

    def _dense_variant(self) -> Variant:
        for runner in ("engine", "torch"):
            if (self._folder(f"dense-{runner}") / "videos.json").is_file():
                return Variant(None, runner)  # type: ignore[arg-type]
        raise ArtifactError("the dense model's videos are missing: run the same command again")

    def _measure(self, store: VideoStore, reference: VideoStore | None) -> Measured:
        metrics = [m for m in self._metrics if reference is not None or m.info.kind != "paired"]
        prompts = [sample.prompt.text for sample in self.samples]
        with self._reporter.task("measuring", total=len(self.samples)) as advance:
            return measure(store, prompts, metrics, reference=reference, advance=advance)

    def _kept(self, name: str, digest: str, make: Any) -> Measured:
        found = self._load(name, digest)
        if found is not None:
            return found
        measured: Measured = make()
        folder = self._folder(f"measured-{name}")
        with atomic_directory(folder) as scratch:
            hashes = _hashes_of(measured.save(scratch))
            (scratch / "made-from").write_text(f"{self.key} {digest} {hashes}\n", encoding="utf-8")
        return measured

    def _load(self, name: str, digest: str) -> Measured | None:
        folder = self._folder(f"measured-{name}")
        try:
            made_from = read_regular(folder / "made-from").decode(errors="replace").split()
            if made_from != [self.key, digest, _hashes_of([folder / ARRAYS, folder / META])]:
                return None
            return Measured.load(folder)
        except OSError:
            return None

    def _folder(self, name: str) -> Path:
        parent = self.state.run.path / FOLDER / self._key_of_samples()
        parent.mkdir(parents=True, exist_ok=True)
        return parent / name

    def _key_of_samples(self) -> str:
        return sha256_text(canonical_json([sample.to_json() for sample in self.samples]))[:12]


def _zoo_clips(frames: int) -> Iterator[Frames]:
    """Real clips ``f h w 3`` of the handwriting that the zoo's models were shown."""
    from f3prune.zoo.digits.dataset import ClipSource, load_split, typical

    source = ClipSource(typical(load_split(), 30), ZOO_SEED)
    for _ in range(ZOO_REAL):
        video = source.batch(1, frames).video[0]
        yield (video * 0.5 + 0.5).clamp(0.0, 1.0).permute(1, 2, 3, 0).float().numpy()


def _hashes_of(files: Sequence[Path]) -> str:
    """One SHA-256 of a measurement's files."""
    return digest_of_files({file.name: sha256_file(file) for file in files})


def _hashes(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of every file of a directory, by name; nothing of what does not exist."""
    files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)): sha256_file(file) for file in files if file.is_file()}
