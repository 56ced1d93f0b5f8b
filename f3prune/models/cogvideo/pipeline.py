"""CogVideo from a prompt to a video: tokenizer, transformer, sampler, image tokens to pixels."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from f3prune.core.checkpoints.checked_load import load_checked
from f3prune.core.errors import InputError
from f3prune.core.json_values import parse_json
from f3prune.core.places import read_regular
from f3prune.models.cogvideo.decoding import TokenModel
from f3prune.models.cogvideo.generation import generate_tokens, interpolate_tokens
from f3prune.models.cogvideo.sampling import ClusterSampler, Sampler, TopKSampler
from f3prune.models.cogvideo.text import PromptTokenizer
from f3prune.models.cogvideo.vq import VQDecoder

INDEX = "model_index.json"
_LIBRARIES = ("f3prune.models", "diffusers")
_PARTS = ("transformer", "vq", "tokenizer", "interpolator")


@dataclass(frozen=True)
class CogVideoSettings:
    """How a checkpoint wants to be sampled; part of ``model_index.json``.

    Attributes:
        text: template of the text that frames are drawn for.
        guide_text: text of the sequence that guidance compares with.
        first_frame: ``both`` draws frame 0 like the others; ``spatial`` without the temporal channel, for
            ``first_frame_text``, as the published checkpoints were made for (CogView2 draws it).
        first_frame_text: template of the text of a ``spatial`` frame 0.
        interpolation_text: template of the text that stage 2 gets; ``{duration}`` is seconds between its frames.
        log_text: attention to text, see ``CogVideo.prefill``; without guidance, and for a ``spatial`` frame 0.
        image_tokens: the first so many tokens are image tokens; None asks the tokenizer (``first``).
        temperature, top_k, temperature2: of the sampler; ``temperature2`` is for clusters only.
        guidance_scale: 1 for none.
    """

    text: str = "{prompt}"
    guide_text: str = ""
    first_frame: str = "both"
    first_frame_text: str = "{prompt}"
    interpolation_text: str = "{prompt}"
    log_text: float = 0.0
    image_tokens: int | None = None
    temperature: float = 1.05
    top_k: int = 12
    temperature2: float = 0.89
    guidance_scale: float = 3.0

    def __post_init__(self) -> None:
        if self.first_frame not in {"both", "spatial"}:
            raise InputError(f"first_frame is {self.first_frame!r}, expected both or spatial")

    @classmethod
    def read(cls, index: Mapping[str, Any]) -> CogVideoSettings:
        """The settings in a ``model_index.json``; what it does not say stays at its default.

        Raises:
            InputError: a setting that does not exist.
        """
        given = dict(index.get("settings", {}))
        unknown = sorted(given.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"model_index.json has the setting {unknown[0]!r}, which CogVideo does not know")
        return cls(**given)


@dataclass
class CogVideoPipelineOutput:
    """``frames``: ``1 f h w 3`` float32 in [0, 1]; ``tokens``: ``1 f F`` int64; the texts that were used."""

    frames: Any
    tokens: torch.Tensor
    text: list[int]
    guide: list[int] | None


class CogVideoPipeline:
    """A prompt in, a video out. Saved and loaded like a diffusers pipeline: ``model_index.json`` and a folder a part.

    Attributes:
        transformer: stage-1 model, or its engine.
        vq: image tokens to pixels.
        tokenizer: text to tokens.
        interpolator: stage-2 model, or None.
        settings: how to sample.
        cluster_labels: cluster of every image token for the cluster sampler; None samples the likeliest tokens.
    """

    def __init__(
        self,
        transformer: TokenModel,
        vq: VQDecoder,
        tokenizer: PromptTokenizer,
        settings: CogVideoSettings | None = None,
        interpolator: TokenModel | None = None,
        cluster_labels: torch.Tensor | None = None,
    ) -> None:
        if transformer.shape.stage != 1 or (interpolator is not None and interpolator.shape.stage != 2):
            raise InputError("a CogVideo pipeline draws with a stage-1 transformer and interpolates with a stage-2 one")
        self.transformer = transformer
        self.vq = vq
        self.tokenizer = tokenizer
        self.settings = settings or CogVideoSettings()
        self.interpolator = interpolator
        self.cluster_labels = cluster_labels
        self._on_token: Callable[[], None] = lambda: None

    @classmethod
    def from_pretrained(
        cls, path: str | Path, dtype: torch.dtype = torch.float32, variant: str | None = None, **parts: Any
    ) -> CogVideoPipeline:
        """Load from a local directory.

        Args:
            path: what ``save_pretrained`` wrote.
            dtype: of the transformers.
            variant: of the weight files.
            parts: ``transformer=…`` to use in place of the directory's; other arguments of diffusers are ignored.

        Raises:
            InputError: a file is missing or names what is not allowed.
        """
        folder = Path(path)
        try:
            index = parse_json(read_regular(folder / INDEX))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / INDEX} cannot be read ({error}): give a CogVideo pipeline") from error
        classes = {name: _part_class(folder, name, index[name]) for name in _PARTS if name in index}
        found: dict[str, Any] = {}
        for name in _PARTS:
            if parts.get(name) is not None:
                found[name] = parts[name]
            elif name in classes:
                part = classes[name]
                wanted = dtype if name in {"transformer", "interpolator"} else None
                checked = issubclass(part, torch.nn.Module)
                found[name] = (
                    load_checked(part, folder / name, wanted, variant)
                    if checked
                    else part.from_pretrained(folder / name)
                )
        missing = [name for name in _PARTS[:3] if name not in found]
        if missing:
            raise InputError(f"{folder / INDEX} lists no {', '.join(missing)}: a CogVideo pipeline needs them")
        settings = CogVideoSettings.read(index)
        labels = None
        if (folder / "cluster_labels.json").is_file():
            labels = torch.tensor(parse_json(read_regular(folder / "cluster_labels.json")))
        for part in found.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        return cls(settings=settings, cluster_labels=labels, **found)

    def save_pretrained(self, path: str | Path) -> None:
        """Write every part and the index."""
        folder = Path(path)
        index: dict[str, Any] = {"_class_name": type(self).__name__, "settings": asdict(self.settings)}
        for name in _PARTS:
            part: Any = getattr(self, name)
            if part is not None:
                library = type(part).__module__.partition(".")[0]
                index[name] = ["f3prune.models" if library == "f3prune" else library, type(part).__name__]
                part.save_pretrained(str(folder / name))
        if self.cluster_labels is not None:
            (folder / "cluster_labels.json").write_text(json.dumps(self.cluster_labels.tolist()), encoding="utf-8")
        (folder / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @property
    def components(self) -> dict[str, Any]:
        """Parts by name."""
        return {name: getattr(self, name) for name in _PARTS}

    def to(self, device: torch.device | str) -> CogVideoPipeline:
        """Move every part that is a module."""
        for part in self.components.values():
            if isinstance(part, torch.nn.Module):
                part.to(device)
        return self

    def set_progress_bar_config(self, **options: Any) -> None:
        """For diffusers' sake; ``watching_tokens`` is what shows progress."""

    @contextlib.contextmanager
    def watching_tokens(self, on_token: Callable[[], None]) -> Iterator[None]:
        """Call ``on_token`` after every token that is drawn inside."""
        before, self._on_token = self._on_token, on_token
        try:
            yield
        finally:
            self._on_token = before

    def count_tokens(self, num_frames: int | None = None) -> int:
        """How many tokens a call with so many frames draws."""
        return (num_frames or self.transformer.shape.frame_num) * self.transformer.shape.frame_len

    def __call__(
        self,
        prompt: str,
        num_frames: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "np",
    ) -> CogVideoPipelineOutput:
        """Generate one clip.

        Args:
            prompt: text.
            num_frames: the transformer's own number at most, or, with an interpolator, 2 n - 1 of a number it can
                make; its own by default.
            guidance_scale, temperature, top_k: the settings' by default.
            generator: of the draws.
            output_type: ``np`` for pixels, ``latent`` for tokens alone.

        Returns:
            See ``CogVideoPipelineOutput``.

        Raises:
            InputError: a number of frames the model cannot make, or a text that the tokenizer refuses.
        """
        settings, shape = self.settings, self.transformer.shape
        drawn, doublings = self._plan(num_frames or shape.frame_num)
        scale = settings.guidance_scale if guidance_scale is None else guidance_scale
        sampler = self._sampler(temperature, top_k)
        text = self._encode(settings.text, prompt=prompt)
        guide = self._encode(settings.guide_text) if scale != 1.0 else None
        given = torch.zeros(1, 0, shape.frame_len, dtype=torch.int64)
        begin = self.tokenizer.begin_of_image
        common: dict[str, Any] = {"generator": generator, "on_token": self._on_token}
        if settings.first_frame == "spatial":
            words = self._encode(settings.first_frame_text, prompt=prompt)
            given = generate_tokens(
                self.transformer, words, given, (0,), begin, sampler,
                log_text=settings.log_text, spatial_only=True, **common,
            )  # fmt: skip
        tokens = generate_tokens(
            self.transformer, text, given, range(drawn), begin, sampler,
            guide=guide, guidance_scale=scale, log_text=0.0 if guide else settings.log_text, **common,
        )  # fmt: skip
        for level in range(doublings):
            words = self._encode(settings.interpolation_text, prompt=prompt, duration=2.0 / 2**level)
            if self.interpolator is None:
                raise InputError("this pipeline has no interpolator")
            tokens = interpolate_tokens(
                self.interpolator, words, tokens, begin, sampler, log_text=settings.log_text, **common
            )
        device = getattr(self.vq, "device", tokens.device)
        frames = np.asarray(self.vq.decode(tokens.to(device)).cpu()) if output_type != "latent" else None
        return CogVideoPipelineOutput(frames, tokens, text, guide)

    def sequence(self, output: CogVideoPipelineOutput) -> dict[str, torch.Tensor]:
        """A generated clip as arguments of ``CogVideo.forward``: prompt and guide in a batch, text left-padded."""
        from f3prune.models.cogvideo.decoding import text_positions

        texts = [output.text] if output.guide is None else [output.text, output.guide]
        length, shape = max(map(len, texts)), self.transformer.shape
        mask = torch.tensor([[0] * (length - len(item)) + [1] * len(item) for item in texts])
        text = torch.tensor([[self.tokenizer.pad] * (length - len(item)) + item for item in texts])
        count = min(output.tokens.shape[1], shape.frame_num)
        fed = output.tokens[:, :count].roll(1, dims=2)
        fed[..., 0] = self.tokenizer.begin_of_image
        video = torch.tensor([slot for time in range(count) for slot in shape.frame_positions(time)])
        return {
            "tokens": torch.cat([text, fed.flatten(1).expand(len(texts), -1)], dim=1),
            "position_ids": torch.cat([text_positions(mask), video.expand(len(texts), -1)], dim=1),
            "text_mask": mask,
        }

    def _plan(self, wanted: int) -> tuple[int, int]:
        """Frames to draw and how often to double them."""
        most, doublings = self.transformer.shape.frame_num, 0
        frames = wanted
        while frames > most and frames % 2 == 1 and self.interpolator is not None:
            frames, doublings = (frames + 1) // 2, doublings + 1
        if not 1 <= frames <= most or (doublings and (frames < 3 or frames % 2 == 0)):
            more = f", {2 * most - 1} or {4 * most - 3}" if self.interpolator is not None else ""
            raise InputError(f"`num_frames` is {wanted}, expected 1 to {most}{more} for this model")
        return frames, doublings

    def _sampler(self, temperature: float | None, top_k: int | None) -> Sampler:
        settings = self.settings
        heat = settings.temperature if temperature is None else temperature
        kept = settings.top_k if top_k is None else top_k
        if self.cluster_labels is not None:
            return ClusterSampler(self.cluster_labels, kept, heat, settings.temperature2)
        count = settings.image_tokens if settings.image_tokens is not None else int(vars(self.tokenizer)["first"])
        return TopKSampler(count, kept, heat)

    def _encode(self, template: str, **values: Any) -> list[int]:
        return self.tokenizer.encode(template.format(**values))


def _part_class(folder: Path, name: str, entry: Any) -> Any:
    """The class that the index names for a part; only from libraries that ship with this package."""
    try:
        library, class_name = entry
        if library not in _LIBRARIES:
            raise InputError(
                f"{folder / INDEX} wants {name} from {library!r}, expected one of {', '.join(_LIBRARIES)}: "
                f"other code is not run"
            )
        return getattr(importlib.import_module(library), class_name)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / INDEX} names an unknown {name} ({entry}): save the pipeline again") from error
