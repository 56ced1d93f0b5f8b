"""Convert: a published checkpoint in, a directory with config.json and safetensors out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from f3prune.core.atomic_files import atomic_directory
from f3prune.core.errors import InputError
from f3prune.core.json_values import read_json
from f3prune.core.places import absolute, refuse_to_replace
from f3prune.core.progress import SILENT, Reporter
from f3prune.models.cogvideo import PUBLISHED, CogVideo, CogVideoConfig
from f3prune.models.cogvideo.checkpoint import read_checkpoint
from f3prune.models.cogvideo.published import translate

SHARD_BYTES = 2 * 10**9
"""How large a weights file gets. The tensors of one file at a time are copied into memory."""
_STEM = "diffusion_pytorch_model"


@dataclass(frozen=True)
class Converted:
    """What came of a checkpoint.

    Attributes:
        parameters: number of them.
        dtypes: of the tensors, each once, as torch calls them.
        files: names of the weights files.
    """

    parameters: int
    dtypes: tuple[str, ...]
    files: tuple[str, ...]


def cogvideo_config(shape: str | None = None, config: Path | None = None) -> CogVideoConfig:
    """Hyperparameters by the name of a published checkpoint, or from a JSON file; stage 1's when neither is given.

    Args:
        shape: a key of ``PUBLISHED``.
        config: a JSON object with fields of ``CogVideoConfig``; what it leaves out is as in stage 1, and names that
            start with an underscore, which ``config.json`` has, are ignored.

    Raises:
        InputError: both are given, the name is unknown, or the file holds something else.
    """
    if shape is not None and config is not None:
        raise InputError(f"`shape` {shape} and `config` {config} say the same thing twice: give one of them")
    if config is None:
        name = shape or next(iter(PUBLISHED))
        if name not in PUBLISHED:
            raise InputError(f"`shape` {name} is not known, expected {' or '.join(PUBLISHED)}: or give `config`")
        return PUBLISHED[name]
    if not config.is_file():
        raise InputError(f"`config` {config} does not exist: give a JSON file with the hyperparameters")
    given = {name: value for name, value in read_json(config).items() if not name.startswith("_")}
    known = [field.name for field in fields(CogVideoConfig)]
    wrong = [f"{name} is not a hyperparameter" for name in given if name not in known]
    wrong += [
        f"{name} is {value!r}, expected a whole number"
        for name, value in given.items()
        if name in known and type(value) is not int
    ]
    if wrong:
        raise InputError(f"`config` {config}: {'; '.join(wrong)}: expected some of {', '.join(known)}")
    return CogVideoConfig(**given)


def check_output(output: Path) -> None:
    """Refuse an output before any work is done.

    Raises:
        InputError: it is a file or a directory that holds something, or one of its parents is a file.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise InputError(f"`output` {output} exists already: give a new directory, or remove this one")
    refuse_to_replace(absolute(output), folder=True)
    parent = output.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise InputError(f"`output` {output}: {parent} is a file, not a directory: give another place")


def convert_cogvideo(
    file: Path,
    output: Path,
    config: CogVideoConfig | None = None,
    reporter: Reporter = SILENT,
    shard_bytes: int = SHARD_BYTES,
) -> Converted:
    """Turn a published CogVideo checkpoint into a directory that ``CogVideo.from_pretrained`` loads.

    Args:
        file: ``mp_rank_00_model_states.pt``; it is mapped into memory, not read whole, and only tensors are unpickled.
        output: a new or empty directory; it appears whole or not at all.
        config: hyperparameters of the checkpoint; stage 1's by default.
        reporter: of progress.
        shard_bytes: how large a weights file gets; a single larger tensor has a file to itself.

    Raises:
        InputError: the file is no such checkpoint or is damaged, its tensors do not fit the hyperparameters (all that
            are missing, left over or misshapen are named), or the output is taken or cannot be written.
    """
    config = config or PUBLISHED["cogvideo-stage1"]
    check_output(output)
    with reporter.task("reading the checkpoint"):
        published = read_checkpoint(file)
        try:
            tensors = translate(published, config)
        except InputError as error:
            raise InputError(f"{file}: {error} (`shape` or `config`)") from error
        with torch.device("meta"):
            model = CogVideo(config)
    shards = list(_shards(tensors, shard_bytes))
    total = sum(tensor.nbytes for tensor in tensors.values())
    names = [
        f"{_STEM}.safetensors" if len(shards) == 1 else f"{_STEM}-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    try:
        # The last unit is for what the system has yet to put on the disk.
        with reporter.task("writing safetensors", total=len(shards) + 1) as advance, atomic_directory(output) as folder:
            if total > (free := shutil.disk_usage(folder).free):
                raise InputError(
                    f"`output` {output} needs {total:,} bytes, and {free:,} are free there: make room, or give another "
                    "place"
                )
            model.save_config(folder)
            for name, shard in zip(names, shards, strict=True):
                # Copies, because the format refuses tensors that share memory, as the parts of a split one do.
                copies = {key: tensors[key].clone(memory_format=torch.contiguous_format) for key in shard}
                save_file(copies, folder / name, metadata={"format": "pt"})
                # The format's writer lets nobody but the owner read, whatever the umask says.
                shutil.copymode(folder / CogVideo.config_name, folder / name)
                del copies
                advance()
            if len(shards) > 1:
                _write_index(folder, dict(zip(names, shards, strict=True)), total)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"`output` {output} could not be written ({error}): make room, or give another place"
        ) from error
    return Converted(
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        files=tuple(names),
    )


def _shards(tensors: Mapping[str, torch.Tensor], limit: int) -> Iterator[list[str]]:
    """Names of the tensors of every file, in their order."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + tensor.nbytes > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    yield names


def _write_index(folder: Path, shards: Mapping[str, list[str]], total: int) -> None:
    """What loaders of several files look up a tensor's file in."""
    places = {key: name for name, keys in shards.items() for key in keys}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / f"{_STEM}.safetensors.index.json").write_text(text, encoding="utf-8")
