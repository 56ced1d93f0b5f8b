"""Small graphs to build engines from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline
from onnx import TensorProto, helper, numpy_helper

from f3prune.testing import TINY_SHAPES, tiny_denoiser
from tests.exports import exported

GraphMaker = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an engine cache of its own."""
    cache = tmp_path / "f3prune-cache"
    monkeypatch.setenv("F3PRUNE_CACHE", str(cache))
    return cache / "engines"


@pytest.fixture
def make_graph(tmp_path: Path) -> GraphMaker:
    """A maker of ``sample = softmax(hidden_states @ weight)``: symbolic batch, the weight in a file of its own."""

    def make(
        directory: str = "onnx",
        seed: int = 0,
        masks: str | None = "a" * 64,
        operator: str = "Softmax",
        constants: str = "{}",
        element: int = TensorProto.FLOAT,
    ) -> Path:
        folder = tmp_path / directory
        folder.mkdir(exist_ok=True)
        dtype = helper.tensor_dtype_to_np_dtype(element)
        weight = np.random.default_rng(seed).standard_normal((8, 8)).astype(dtype)
        nodes = [
            helper.make_node("MatMul", ["hidden_states", "weight"], ["scores"], name="project"),
            helper.make_node(operator, ["scores"], ["sample"], name="attend"),
        ]
        graph = helper.make_graph(
            nodes,
            "denoiser",
            [helper.make_tensor_value_info("hidden_states", element, ["batch", 4, 8])],
            [helper.make_tensor_value_info("sample", element, ["batch", 4, 8])],
            [numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        properties = {"f3prune.constants": constants}
        if masks:
            properties["f3prune.masks_digest"] = masks
        helper.set_model_props(model, properties)
        path = folder / "denoiser.onnx"
        data = f"{path.name}.data"
        (folder / data).unlink(missing_ok=True)
        onnx.save(model, str(path), save_as_external_data=True, location=data, size_threshold=0)
        return path

    return make


class TinyCogVideoX:
    """A tiny CogVideoX pipeline and the ONNX graph of its transformer, exported with a symbolic batch."""

    def __init__(self, directory: Path) -> None:
        torch.manual_seed(0)
        self.transformer = tiny_denoiser("cogvideox")
        self.latents = TINY_SHAPES["cogvideox"]
        config = self.transformer.config
        self.vae = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 3,
            up_block_types=("CogVideoXUpBlock3D",) * 3,
            block_out_channels=(8, 8, 8),
            latent_channels=config.in_channels,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=1,
        ).eval()
        self.text = torch.randn(2, 1, config.max_text_seq_length, config.text_embed_dim)
        self.config = directory / "transformer"
        self.transformer.save_config(self.config)
        self.onnx = exported("cogvideox").result.path

    def pipeline(self, transformer: torch.nn.Module) -> CogVideoXPipeline:
        """The pipeline with that transformer; it is given text embeddings and needs no text encoder."""
        pipeline = CogVideoXPipeline(None, None, self.vae, transformer, CogVideoXDDIMScheduler())
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def generate(self, pipeline: CogVideoXPipeline, steps: int = 2, **arguments: Any) -> torch.Tensor:
        """A video ``f c h w``, values 0 to 1, the same for the same denoiser."""
        values = {
            "prompt_embeds": self.text[0],
            "negative_prompt_embeds": self.text[1],
            "num_frames": self.latents.frames,
            "height": 4 * self.latents.height,
            "width": 4 * self.latents.width,
            "num_inference_steps": steps,
            "generator": torch.Generator("cpu").manual_seed(3),
            "output_type": "pt",
            **arguments,
        }
        return pipeline(**values).frames[0]


@pytest.fixture(scope="session")
def cogvideox(tmp_path_factory: pytest.TempPathFactory) -> TinyCogVideoX:
    return TinyCogVideoX(tmp_path_factory.mktemp("cogvideox"))
