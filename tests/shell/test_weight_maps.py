"""A weight map names safetensors beside it and nothing else, so that what is loaded is what is hashed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from f3prune.core.errors import InputError
from f3prune.pipelines.sources import resolve


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What a pipeline directory needs in order to be found."""
    for folder in ("transformer", "text_encoder"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(b"weights")
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel"}))
    return tmp_path


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    "name",
    ["w.bin", "../x.safetensors", "/x.safetensors", "sub/x.safetensors", ".x.safetensors", "", 1, "x.safetensors\n"],
)
def test_other_names_are_refused(model: Path, name: object, alone: bool) -> None:
    file = model / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": {"good": "model.safetensors", "bad": name}}))
    with pytest.raises(InputError, match=r"expected a \.safetensors file in the same directory"):
        resolve(str(model / "transformer" if alone else model))


@pytest.mark.parametrize(
    "file",
    ["text_encoder/model.safetensors.index.json", "transformer/diffusion_pytorch_model.safetensors.index.fp16.json"],
)
@pytest.mark.parametrize("content", [{"weight_map": {"bad": "w.bin"}}, {"weight_map": ["w.bin"]}, {}])
def test_every_component_and_variant_is_looked_at(model: Path, file: str, content: object) -> None:
    (model / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match="weight"):
        resolve(str(model))


def test_what_a_map_names_is_hashed(model: Path) -> None:
    names = {"transformer": "diffusion_pytorch_model", "text_encoder": "model"}
    shards = [model / folder / f"{name}-00001-of-00002.safetensors" for folder, name in names.items()]
    for shard, name in zip(shards, names.values(), strict=True):
        shard.write_bytes(b"1")
        text = json.dumps({"weight_map": {"w": shard.name}})
        (shard.parent / f"{name}.safetensors.index.json").write_text(text)
    before = resolve(str(model))
    digests = before.digest(), before.pipeline_digest()
    for shard in shards:
        shard.write_bytes(b"2")
    after = resolve(str(model))
    assert after.digest() != digests[0]
    assert after.pipeline_digest() != digests[1]
