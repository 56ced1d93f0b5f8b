from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f3prune import zoo
from f3prune.zoo.digits.dataset import CANVAS, FRAMES
from f3prune.zoo.digits.requests import requests
from zoo_training.digits_animatediff.evaluate import draw_clips as draw_animatediff
from zoo_training.digits_animatediff.train_denoiser import AnimateDiffTrainer
from zoo_training.digits_latte.architecture import build_transformer, with_variance
from zoo_training.digits_latte.evaluate import draw_clips as draw_latte
from zoo_training.digits_latte.train_denoiser import LatteTrainer
from zoo_training.evaluation import Settings, Videos, load_pipeline
from zoo_training.training import Batch, DiffusionTrainer, Phase, Recipe
from zoo_training.two_stage import load_image_vae

SETTINGS: Settings = {"num_inference_steps": 1, "guidance_scale": 2.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("kind", "draw", "fewer"),
    [(LatteTrainer, draw_latte, 1), (AnimateDiffTrainer, draw_animatediff, FRAMES // 2)],
    ids=["latte", "animatediff"],
)
def test_short_training_goes_on_and_gives_a_pipeline(
    kind: Callable[[Any, Recipe, Path], DiffusionTrainer], draw: Callable[..., Videos], fewer: int, tmp_path: Path
) -> None:
    vae = load_image_vae(zoo.path("digits-image") / "vae")
    first, second = (kind(vae, Recipe(1.0, max_steps=steps), tmp_path) for steps in (1, 2))
    for trainer in (first, second):
        trainer.curriculum = (Phase(0.5, (Batch(FRAMES, 2),)), Phase(1.0, (Batch(fewer, 2),)))
    first.train(tmp_path / "log.jsonl")
    second.resume()
    for ours, theirs in ((first.nets, second.nets), (first.average, second.average)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    second.train(tmp_path / "log.jsonl")
    assert (second.step, second.clips) == (2, {str(FRAMES): 2, str(fewer): 2})
    second.export(tmp_path / "pipeline")
    pipeline = load_pipeline(tmp_path / "pipeline")
    wanted = requests(2, first_seed=3)
    clips = draw(pipeline, wanted, SETTINGS)
    assert clips.shape == (2, FRAMES, CANVAS, CANVAS, 3)
    assert 0.0 <= clips.min() <= clips.max() <= 1.0
    np.testing.assert_allclose(draw(pipeline, wanted[1:], SETTINGS), clips[1:], atol=1e-4)


def test_untrained_variance_leaves_the_velocity_as_it_is() -> None:
    torch.manual_seed(0)
    model = build_transformer().eval()
    torch.nn.init.normal_(model.proj_out.weight)
    torch.nn.init.normal_(model.proj_out.bias)
    channels, size = model.config.in_channels, model.config.sample_size
    given = (torch.randn(1, channels, FRAMES, size, size), torch.tensor([500]))
    text = torch.randn(1, 4, model.config.caption_channels)
    with torch.no_grad():
        velocity, doubled = (
            net(*given, text, encoder_attention_mask=None, return_dict=False)[0]
            for net in (model, with_variance(model).eval())
        )
    assert torch.allclose(doubled[:, :channels], velocity, atol=1e-5)
    assert float(doubled[:, channels:].abs().max()) == 0.0
