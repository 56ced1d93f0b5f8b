"""Save and load a pruned denoiser with one call each: safetensors + config.json + pruning.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from f3prune.calibration.masks import Masks
from f3prune.calibration.prune import PruningRecord, bake, pruning_of
from f3prune.calibration.staged import StagedDenoiser
from f3prune.core.errors import ArtifactError, InputError
from f3prune.core.json_values import parse_json
from f3prune.core.places import read_regular
from f3prune.core.weights import lazily_in_dtype, read_lazily, save_streaming
from f3prune.families.classes import denoiser_class

VERSION = 1
WEIGHTS = "model.safetensors"


def save_pruned(denoiser: nn.Module, directory: Path | str) -> None:
    """Write a baked denoiser: ``model.safetensors``, ``config.json`` and ``pruning.json``.

    Weights are written one after the other, so that lazy weights are in memory one at a time.

    Args:
        denoiser: what ``prune_denoiser`` gave.
        directory: made if it is missing.

    Raises:
        InputError: the denoiser was never pruned, or holds what ``load_pruned`` could not load, such as adapters.
    """
    record = pruning_of(denoiser)
    if record is None:
        raise InputError("this denoiser is not pruned: call prune_denoiser first, or denoiser.save_pretrained")
    state = denoiser.state_dict()
    _refuse_strangers(denoiser, record, state)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_streaming(state, directory / WEIGHTS, {"format": "pt"})
    saved: Any = denoiser
    saved.save_config(str(directory))
    pruning = {
        "version": VERSION,
        "stage": record.stage,
        "source_digest": record.source_digest,
        "masks": json.loads(record.masks.to_json()),
        "buffers": {
            name: str(buffer.dtype).removeprefix("torch.")
            for name, buffer in denoiser.named_buffers()
            if name not in state and buffer.is_floating_point()
        },
    }
    (directory / "pruning.json").write_text(json.dumps(pruning, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load_pruned(directory: Path | str, dtype: torch.dtype | None = None, lazy: bool = False) -> nn.Module:
    """Load what ``save_pruned`` wrote, ready for inference in the original pipeline.

    The dense architecture is made from its configuration without allocating weights, the masks are baked into it, and
    the saved tensors take the place of what is left.

    Args:
        directory: the saved denoiser; one with a ``stage-k`` folder per stage gives a ``StagedDenoiser``.
        dtype: convert floating-point weights to it; ``None`` keeps them as saved.
        lazy: leave the weights in their file until they are used (``f3prune.core.weights.lazy_weights``).

    Returns:
        The denoiser, in evaluation mode.

    Raises:
        ArtifactError: a file is missing, unreadable, of another version, or tensors and masks do not belong together.

    Examples:
        >>> import tempfile
        >>> from f3prune.calibration import PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
        >>> from f3prune.testing import TINY_SHAPES, tiny_denoiser
        >>> wan = tiny_denoiser("wan")
        >>> measured = calibrate(wan, lambda: denoise_synthetic(wan, TINY_SHAPES["wan"], steps=2))
        >>> masks = select_masks(measured, PruneConfig(alpha=0.5, mode="pooled:2:1", score="aas"))
        >>> pruned = prune_denoiser(wan, masks)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_pruned(pruned, folder)
        ...     loaded = load_pruned(folder)
        >>> type(loaded).__name__, pruning_of(loaded).masks == masks
        ('WanTransformer3DModel', True)
    """
    directory = Path(directory)
    if (directory / "stage-0").is_dir():
        return _load_stages(directory, dtype, lazy)
    try:
        pruning = parse_json(read_regular(directory / "pruning.json"))
        config = parse_json(read_regular(directory / "config.json"))
        if pruning["version"] != VERSION:
            raise ArtifactError(f"{directory}/pruning.json has another version: run `prune(...)` again")
        record = PruningRecord(
            Masks.from_json(json.dumps(pruning["masks"])), int(pruning["stage"]), str(pruning["source_digest"])
        )
        name = config["_class_name"]
        buffers = dict(pruning["buffers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{directory} is not a pruned denoiser ({error}): run `prune(...)` again") from error
    denoiser = _empty(denoiser_class(name), config, record)
    try:
        state = read_lazily(directory / WEIGHTS) if lazy else load_file(str(directory / WEIGHTS))
        denoiser.load_state_dict(state, strict=True, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        summary = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{directory / WEIGHTS} does not fit its masks ({summary}): run `prune(...)` again"
        ) from error
    for buffer_name, buffer_dtype in buffers.items():
        owner, _, leaf = buffer_name.rpartition(".")
        module = denoiser.get_submodule(owner)
        setattr(module, leaf, module.get_buffer(leaf).to(getattr(torch, buffer_dtype)))
    if dtype is not None:
        lazily_in_dtype(denoiser, dtype, keep=())
    return denoiser.eval().requires_grad_(False)


def _empty(dense_class: Any, config: Any, record: PruningRecord) -> nn.Module:
    """The pruned architecture without weights."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        denoiser: nn.Module = dense_class.from_config(config)
    bake(denoiser, record.masks, record.stage, record.source_digest)
    return denoiser


def _refuse_strangers(denoiser: Any, record: PruningRecord, state: Mapping[str, torch.Tensor]) -> None:
    """What is saved has the tensors that loading will look for."""
    expected = _empty(type(denoiser), denoiser.config, record).state_dict()
    wrong = sorted(state.keys() ^ expected.keys())
    if wrong:
        raise InputError(
            f"this denoiser has other tensors than its configuration says ({len(wrong)}, such as {wrong[0]}), and "
            f"could not be loaded again: load the model anew, and fuse and unload adapters before it is pruned"
        )


def _load_stages(directory: Path, dtype: torch.dtype | None, lazy: bool) -> nn.Module:
    first = load_pruned(directory / "stage-0", dtype, lazy)
    record = pruning_of(first)
    stages = [first]
    masks = record.masks if record is not None else None
    for index in range(1, len(masks.stages) if masks else 1):
        stages.append(load_pruned(directory / f"stage-{index}", dtype, lazy))
    records = [pruning_of(stage) for stage in stages]
    if masks is None or any(
        found is None or found.stage != index or found.masks.digest != masks.digest
        for index, found in enumerate(records)
    ):
        raise ArtifactError(f"the stages in {directory} do not belong together: run `prune(...)` again")
    return StagedDenoiser(masks, stages).eval()
