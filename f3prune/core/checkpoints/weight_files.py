"""Which files of a component's directory are its weights. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from f3prune.core.json_values import read_json

_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model", "model"
_VARIANT = re.compile(rf"(?:{_DIFFUSERS}|{_TRANSFORMERS})\.([\w-]+?)(?:-\d+-of-\d+)?\.safetensors")


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files that are read for a component: the variant's where it has any, else those without one.

    Of a file and an index of shards side by side, diffusers reads the shards and transformers the file. A directory
    that has neither under their names has all its safetensors files.

    Raises:
        InputError: an index cannot be read.
    """
    return [path for path in listed_files(folder, variant) if path.suffix == ".safetensors"]


def listed_files(folder: Path, variant: str | None = None) -> list[Path]:
    """``weight_files``, behind the index that lists them where there is one."""
    if not has_variant(folder, variant):
        variant = None
    dot = f".{variant}" if variant else ""
    for base in (_DIFFUSERS, _TRANSFORMERS):
        whole = folder / f"{base}{dot}.safetensors"
        index = folder / f"{base}.safetensors.index{dot}.json"
        ways = {whole: [whole], index: _shards(index)}
        for way in (index, whole) if base == _DIFFUSERS else (whole, index):
            if way.is_file():
                return ways[way]
    return sorted(path for path in folder.glob("*.safetensors") if not _VARIANT.fullmatch(path.name))


def has_variant(folder: Path, variant: str | None) -> bool:
    """Whether a component has weights of this variant."""
    return variant is not None and variant in variants_of(folder)


def variants_of(folder: Path) -> list[str]:
    """The variants that a component has weights of: ``fp16`` of ``diffusion_pytorch_model.fp16.safetensors``."""
    found = (_VARIANT.fullmatch(path.name) for path in folder.glob("*.safetensors"))
    return sorted({match[1] for match in found if match})


def quantisation(config: Mapping[str, Any]) -> str | None:
    """How a component's ``config.json`` says that its weights are quantised; None where it does not."""
    given = config.get("quantization_config")
    if not given:
        return None
    return str(given.get("quant_method") or "an unnamed method") if isinstance(given, dict) else str(given)


def _shards(index: Path) -> list[Path]:
    if not index.is_file():
        return []
    names = read_json(index).get("weight_map", {})
    # Shards lie beside their index, whatever a foreign file says.
    return [index, *(index.parent / name for name in sorted({Path(str(shard)).name for shard in names.values()}))]
