"""Start latents of a tuned clip, in a file beside the parts of its pipeline."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from f3prune.core.atomic_files import atomic_write, sha256_file
from f3prune.core.errors import ArtifactError

FILE = "inverted.safetensors"
_KEY = "latents"


def write_latents(path: Path, latents: torch.Tensor) -> str:
    """Write latents ``1 c f h w`` as float32; returns the file's SHA-256."""
    with atomic_write(path) as temporary:
        save_file({_KEY: latents.detach().float().cpu().contiguous()}, str(temporary))
    return sha256_file(path)


def read_latents(path: Path, digest: str) -> torch.Tensor:
    """Latents ``1 c f h w`` (float32).

    Raises:
        ArtifactError: missing, or not the file that was saved with the pipeline.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, and model_index.json names it: run `tune(...)` again")
    if (found := sha256_file(path)) != digest:
        raise ArtifactError(f"{path} was altered (sha256 {found[:12]}, expected {digest[:12]}): run `tune(...)` again")
    try:
        latents = load_file(str(path))[_KEY]
    except (OSError, SafetensorError, KeyError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): run `tune(...)` again") from error
    if latents.ndim != 5 or latents.shape[0] != 1:
        raise ArtifactError(f"{path} has latents of shape {tuple(latents.shape)}, expected 1 x c x f x h x w")
    return latents
