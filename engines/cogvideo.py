"""CogVideo on engines: prefill and decode step, caches bound in place."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import torch

from f3prune.core.errors import InputError
from f3prune.core.tensors import DECODE, FRAME_SLOTS, GRAPH_FILE, PREFILL, VIDEO_SLOTS
from f3prune.engines._record import EngineRecord
from f3prune.engines.building import BuildConfig, DimensionRange, Progress, build_engine
from f3prune.engines.session import Session, open_session
from f3prune.models.cogvideo.cache import LayerCache
from f3prune.models.cogvideo.config import CogVideoConfig
from f3prune.models.cogvideo.decoding import replay
from f3prune.models.cogvideo.model import Step, StepBiases

GRAPHS = (PREFILL, DECODE)


def autoregressive_ranges(shape: CogVideoConfig, frames: int) -> dict[str, DimensionRange]:
    """Sizes of the symbolic dimensions of both graphs.

    Args:
        shape: hyperparameters; text takes 1 to ``text_len`` tokens.
        frames: most frames in a sequence.
    """
    longest, per_frame = shape.text_len, shape.frame_len
    return {
        "text": (1, longest, longest),
        FRAME_SLOTS: (1 + per_frame, longest + per_frame, longest + per_frame),
        VIDEO_SLOTS: (1 + per_frame, longest + frames * per_frame, longest + frames * per_frame),
    }


def build_autoregressive(
    onnx_directory: Path | str,
    directory: Path | str,
    shape: CogVideoConfig,
    config: BuildConfig | None = None,
    masks_digest: str | None = None,
    frames: int | None = None,
    progress: Progress | None = None,
) -> dict[str, EngineRecord]:
    """Build the engines of both graphs that ``export_autoregressive`` wrote, ``prefill`` and ``decode``.

    Raises:
        ArtifactError, BackendError, BuildError, InputError: see ``build_engine``.
    """
    config = config or BuildConfig()
    config = replace(config, ranges={**config.ranges, **autoregressive_ranges(shape, frames or shape.frame_num)})
    found = {}
    for number, name in enumerate(GRAPHS):

        def share(fraction: float, phase: str, done: int = number) -> None:
            if progress is not None:
                progress((done + fraction) / len(GRAPHS), phase)

        graph = Path(onnx_directory) / name / GRAPH_FILE
        found[name] = build_engine(graph, Path(directory) / name, config, masks_digest, share)
    return found


class EngineCogVideo:
    """A ``TokenModel`` (see ``f3prune.models.cogvideo.decoding``) whose graphs run on engines.

    A context manager; caches are bound once per frame, as input and output of the decode step at once.

    Attributes:
        shape: hyperparameters.
        config: the same by name, as pipelines ask a denoiser.
    """

    def __init__(
        self, shape: CogVideoConfig, prefill: Session | None, decode: Session, first: EngineCogVideo | None = None
    ) -> None:
        """Give the sessions.

        Args:
            shape: hyperparameters.
            prefill: None for one that is only ever given caches.
            decode: of one token.
            first: the engine without temporal channels that draws frame 0, where the model wants one.
        """
        self.shape = shape
        self.config = asdict(shape)
        self._first = first
        self._prefill, self._decode = prefill, decode

    @classmethod
    def open(
        cls,
        directory: Path | str,
        shape: CogVideoConfig,
        masks_digest: str | None = None,
        device: torch.device | str | None = None,
        first: EngineCogVideo | None = None,
    ) -> EngineCogVideo:
        """Open what ``build_autoregressive`` wrote.

        Raises:
            ArtifactError, BackendError: see ``open_session``.
        """
        prefill, decode = (open_session(Path(directory) / name, device, masks_digest=masks_digest) for name in GRAPHS)
        return cls(shape, prefill, decode, first)

    @property
    def device(self) -> torch.device:
        """Where the engines run."""
        return self._decode.device

    def prefill(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        text_mask: torch.Tensor,
        times: Sequence[int] | None = None,
        log_text: float | torch.Tensor = 0.0,
        spatial_only: bool = False,
    ) -> tuple[torch.Tensor | None, list[LayerCache]]:
        """See ``CogVideo.prefill``; positions follow from the mask, and there are no logits.

        Raises:
            InputError: the sequence holds another number of frames than the graph was exported for.
        """
        if spatial_only:
            return self._spatial().prefill(tokens, position_ids, text_mask, times, log_text)
        text = text_mask.shape[1]
        inputs: dict[str, torch.Tensor] = {
            "text": tokens[:, :text],
            "text_mask": text_mask,
            "log_text": torch.as_tensor(log_text, dtype=torch.float32).expand(tokens.shape[0], 1),
        }
        session = self._starting()
        frames = next((spec for spec in session.inputs if spec.name == "frames"), None)
        expected = frames.shape[1] if frames is not None else 0
        if tokens.shape[1] - text != expected:
            raise InputError(
                f"{tokens.shape[1] - text} tokens of given frames, but the engine was exported for {expected}: "
                f"run `export(...)` for the frames you give"
            )
        if frames is not None:
            inputs["frames"] = tokens[:, text:]
        return None, self._caches(session.run(inputs))

    def bind(self, caches: Sequence[LayerCache], spatial_only: bool = False) -> Step:
        """See ``CogVideo.bind``."""
        if spatial_only:
            return self._spatial().bind(caches)
        held = {f"layers.{i}.{name}": t for i, cache in enumerate(caches) for name, t in cache.tensors().items()}
        batch = caches[0].spatial_key.shape[0]
        sizes = {"batch": batch, FRAME_SLOTS: caches[0].spatial_key.shape[2]}
        for name, tensor in held.items():
            if ".temporal_" in name:
                sizes[VIDEO_SLOTS] = tensor.shape[2]
        inputs, outputs = dict(held), {f"{name}.out": tensor for name, tensor in held.items()}
        for spec in self._decode.inputs:
            if spec.name not in inputs:
                inputs[spec.name] = torch.zeros(self._size(spec, sizes), dtype=spec.torch_dtype, device=self.device)
        logits = self._decode.outputs[0]
        outputs[logits.name] = torch.empty(self._size(logits, sizes), dtype=logits.torch_dtype, device=self.device)
        run = self._decode.bind(inputs, outputs)
        biases = [name for name in inputs if name.endswith("_bias")]
        slots = [name for name in ("frame_slot", "video_slot") if name in inputs]

        def step(
            token: torch.Tensor,
            position_id: torch.Tensor,
            frame_slot: torch.Tensor,
            video_slot: torch.Tensor,
            values: StepBiases,
        ) -> torch.Tensor:
            inputs["token"].copy_(token)
            inputs["position_id"].copy_(position_id)
            for slot in slots:
                inputs[slot].copy_(frame_slot if slot == "frame_slot" else video_slot)
            for bias in biases:
                inputs[bias].copy_(getattr(values, bias.removesuffix("_bias")))
            run()
            return outputs[logits.name]

        return step

    def empty_caches(self, batch: int, frame_slots: int, video_slots: int) -> list[LayerCache]:
        """Caches of zeros with so many slots, as ``bind`` takes them."""
        sizes = {"batch": batch, FRAME_SLOTS: frame_slots, VIDEO_SLOTS: video_slots}
        specs = [spec for spec in self._decode.inputs if spec.name.startswith("layers.")]
        return self._caches(
            {
                spec.name: torch.zeros(self._size(spec, sizes), dtype=spec.torch_dtype, device=self.device)
                for spec in specs
            }
        )

    def __call__(
        self,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        text_mask: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """Replay a whole sequence, see ``f3prune.models.cogvideo.decoding.replay``.

        Args:
            tokens, position_ids, text_mask: see ``CogVideo.forward``.
            return_dict: for the signature's sake.

        Returns:
            Logits ``b (f F) v`` of the frames that the graphs generate, in storage order.
        """
        del position_ids, return_dict
        spec = next((spec for spec in self._starting().inputs if spec.name == "frames"), None)
        given = int(spec.shape[1]) // self.shape.frame_len if spec is not None else 0
        return (replay(self, tokens, text_mask, given),)

    def _starting(self) -> Session:
        if self._prefill is None:
            raise InputError("this engine has no prefill graph: run `build(...)`, or give it caches")
        return self._prefill

    def _spatial(self) -> EngineCogVideo:
        if self._first is None:
            raise InputError(
                "this engine has no graphs that draw frame 0 without the temporal channel: export from a pipeline "
                "whose settings say first_frame spatial"
            )
        return self._first

    @staticmethod
    def _size(spec: Any, sizes: dict[str, int]) -> tuple[int, ...]:
        found = spec.resolve(sizes)
        if found is None:
            raise InputError(f"{spec.name} has sizes {spec.shape} that the caches do not tell: run `export(...)` again")
        return tuple(found)

    def _caches(self, tensors: dict[str, torch.Tensor]) -> list[LayerCache]:
        layers: list[dict[str, torch.Tensor]] = [{} for _ in range(self.shape.num_layers)]
        for name, tensor in tensors.items():
            _, index, field = name.split(".", 2)
            layers[int(index)][field] = tensor
        return [LayerCache(**fields) for fields in layers]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for session in self._sessions():
                stack.enter_context(session)
            stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        for session in self._sessions():
            session.close()

    def _sessions(self) -> list[Session]:
        return [session for session in (self._prefill, self._decode) if session is not None]
