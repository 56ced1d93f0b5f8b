"""Save and load a pruned denoiser with one call each: safetensors + config.json + pruning.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from calibration.bake.prune import PruningRecord, prune_denoiser, pruning_of
from calibration.masks import Masks
from calibration.staged import StagedDenoiser
from f3prune.errors import ArtifactError, InputError
from f3prune.loading import denoiser_class

VERSION = 1
WEIGHTS = "model.safetensors"


def save_pruned(denoiser: nn.Module, directory: Path) -> None:
    """Write a baked denoiser to ``directory``.

    Raises:
        InputError: the denoiser was never pruned.
    """
    record = pruning_of(denoiser)
    if record is None:
        raise InputError("this denoiser is not pruned: call prune_denoiser first, or denoiser.save_pretrained")
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in denoiser.state_dict().items()}
    _own_storage(state)
    save_file(state, str(directory / WEIGHTS), metadata={"format": "pt"})
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


def _own_storage(state: dict[str, torch.Tensor]) -> None:
    """Give tensors that share memory a copy each: safetensors refuses aliases."""
    seen: set[int] = set()
    for name, tensor in state.items():
        pointer = tensor.untyped_storage().data_ptr()
        if pointer in seen:
            state[name] = tensor.clone()
        seen.add(pointer)


def load_pruned(directory: Path, dtype: torch.dtype | None = None) -> nn.Module:
    """Load what ``save_pruned`` wrote, ready for inference in the original pipeline.

    The dense architecture is made from its configuration without allocating weights, the masks are baked into it, and
    the saved tensors take the place of what is left.

    Args:
        directory: the saved denoiser; one with a ``stage-k`` folder per stage gives a ``StagedDenoiser``.
        dtype: convert floating-point weights to it; ``None`` keeps them as saved.

    Raises:
        ArtifactError: a file is missing, unreadable, of another version, or tensors and masks do not belong together.
    """
    if (directory / "stage-0").is_dir():
        return _load_stages(directory, dtype)
    from accelerate import init_empty_weights

    try:
        pruning = json.loads((directory / "pruning.json").read_text(encoding="utf-8"))
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if pruning["version"] != VERSION:
            raise ArtifactError(f"{directory}/pruning.json has another version: run `f3prune prune` again")
        record = PruningRecord(
            Masks.from_json(json.dumps(pruning["masks"])), int(pruning["stage"]), str(pruning["source_digest"])
        )
        name = config["_class_name"]
        buffers = dict(pruning["buffers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{directory} is not a pruned denoiser ({error}): run `f3prune prune` again") from error
    dense_class = denoiser_class(name)
    with init_empty_weights(include_buffers=False):
        denoiser: nn.Module = dense_class.from_config(config)
    prune_denoiser(denoiser, record.masks, record.stage, record.source_digest)
    try:
        state = load_file(str(directory / WEIGHTS))
        denoiser.load_state_dict(state, strict=True, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        summary = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{directory / WEIGHTS} does not fit its masks ({summary}): prune again") from error
    for buffer_name, buffer_dtype in buffers.items():
        owner, _, leaf = buffer_name.rpartition(".")
        module = denoiser.get_submodule(owner)
        setattr(module, leaf, module.get_buffer(leaf).to(getattr(torch, buffer_dtype)))
    if dtype is not None:
        denoiser.to(dtype)
    return denoiser.eval().requires_grad_(False)


def _load_stages(directory: Path, dtype: torch.dtype | None) -> nn.Module:
    first = load_pruned(directory / "stage-0", dtype)
    record = pruning_of(first)
    stages = [first]
    masks = record.masks if record is not None else None
    for index in range(1, len(masks.stages) if masks else 1):
        stages.append(load_pruned(directory / f"stage-{index}", dtype))
    records = [pruning_of(stage) for stage in stages]
    if masks is None or any(
        found is None or found.stage != index or found.masks.digest != masks.digest
        for index, found in enumerate(records)
    ):
        raise ArtifactError(f"the stages in {directory} do not belong together: run `f3prune prune` again")
    return StagedDenoiser(masks, stages).eval()
