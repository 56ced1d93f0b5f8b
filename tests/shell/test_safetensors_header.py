"""Reading one tensor of a safetensors file, against the reference library, and files that are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from f3prune.core.weights.safetensors_header import DTYPES, read_header, read_tensor

TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=3)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(described=TENSORS)
def test_every_tensor_is_what_the_reference_library_reads(
    described: dict[str, tuple[str, list[int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("header") / "file.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8).to(DTYPES[dtype])
        for name, (dtype, shape) in described.items()
    }
    save_file(tensors, path, {"format": "pt"})
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        assert set(header) == set(file.keys())
        for name, entry in header.items():
            found, expected = read_tensor(path, entry), file.get_tensor(name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            # As bytes: numbers of eight bits cannot be compared.
            assert torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (found, expected)))


def written(path: Path, header: bytes, data: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def described(**changes: object) -> bytes:
    return json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}).encode()


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (described(), bytes(7), "end at byte"),
        (described(), bytes(9), "end at byte"),
        (described(shape=[3]), bytes(8), "another size"),
        (described(data_offsets=[4, 12]), bytes(12), "does not lie where"),
        (described(data_offsets=[-4, 4]), bytes(8), "not one of safetensors"),
        (described(dtype="F8"), bytes(8), "not one of safetensors"),
        (b"[1]", b"", "not one of safetensors"),
        (b"{", b"", "not one of safetensors"),
    ],
)
def test_a_damaged_file_is_refused(header: bytes, data: bytes, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "file", header, data)
    with pytest.raises(SafetensorError, match=reason):
        read_header(path)
    with pytest.raises(SafetensorError), safe_open(path, framework="pt"):
        pass


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "file", described(), bytes(8))
    entry = read_header(path)["w"]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SafetensorError, match="cut short"):
        read_tensor(path, entry)
    path.write_bytes(b"\xff" * 4)
    with pytest.raises(SafetensorError, match="does not fit"):
        read_header(path)
