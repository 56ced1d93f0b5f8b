"""The state of a training run as one safetensors file: nothing is pickled, and the file appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from f3prune.core.atomic_files import atomic_write
from f3prune.core.errors import ArtifactError, reason_of

_FACTS = "facts"


def save_state(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    optimizers: Sequence[torch.optim.Optimizer] = (),
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write ``tensors``, the optimizers' moments and JSON ``facts``, replacing the checkpoint that was there.

    Args:
        path: file to write.
        tensors: any shapes and dtypes, by name; names must not begin with ``optimizer.``.
        optimizers: their per-parameter state must be tensors, as with AdamW and Muon.
        facts: what JSON can hold.
    """
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                kept[f"optimizer.{number}.{index}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous().clone()
    with atomic_write(path) as temporary:
        save_file(kept, str(temporary), metadata={_FACTS: json.dumps(dict(facts or {}), sort_keys=True)})


def load_state(
    path: Path, optimizers: Sequence[torch.optim.Optimizer] = ()
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint: its tensors and facts; the optimizers get their moments back.

    Raises:
        ArtifactError: the file is missing, damaged, or no checkpoint of these optimizers.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = reason_of(error, 120)
        raise ArtifactError(f"checkpoint {path} cannot be read ({reason}): remove it and start again") from error
    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    for key in [name for name in tensors if name.startswith("optimizer.")]:
        _, number, index, name = key.split(".", 3)
        if int(number) >= len(states):
            raise ArtifactError(f"checkpoint {path} is of another kind of training: remove it and start again")
        states[int(number)].setdefault(int(index), {})[name] = tensors.pop(key)
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return tensors, facts
