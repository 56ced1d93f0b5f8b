"""The finished zoo:digits-latte and zoo:digits-animatediff: small, found by name, drawing what they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from f3prune import zoo
from f3prune.families import denoiser_component, family_of
from f3prune.zoo import digits_animatediff, digits_latte
from f3prune.zoo.digits.judge import Judge
from f3prune.zoo.digits.requests import requests
from zoo_training.digits_animatediff.evaluate import draw_clips as draw_animatediff
from zoo_training.digits_latte.evaluate import draw_clips as draw_latte
from zoo_training.evaluation import load_pipeline, score

MOST_BYTES = 16_000_000


@dataclass(frozen=True)
class Shipped:
    """A model of the zoo."""

    name: str
    home: Path
    draw: Callable[..., Any]
    sites: tuple[str, ...]


MODULES = ("down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.0", "up_blocks.1", "up_blocks.1", "mid_block")
LATTE = Shipped(
    "digits-latte",
    Path(digits_latte.__file__).parent,
    draw_latte,
    tuple(f"temporal_transformer_blocks.{k}.attn1" for k in range(4)),
)
ANIMATEDIFF = Shipped(
    "digits-animatediff",
    Path(digits_animatediff.__file__).parent,
    draw_animatediff,
    tuple(
        f"{module}.motion_modules.{MODULES[:k].count(module)}.transformer_blocks.0.attn{attention}"
        for k, module in enumerate(MODULES)
        for attention in (1, 2)
    ),
)


@pytest.fixture(scope="module", params=[LATTE, ANIMATEDIFF], ids=lambda shipped: shipped.name)
def shipped(request: pytest.FixtureRequest) -> Shipped:
    found: Shipped = request.param
    return found


@pytest.fixture(scope="module")
def pipeline(shipped: Shipped) -> Any:
    return load_pipeline(zoo.path(shipped.name))


def test_it_is_small_and_safe(shipped: Shipped) -> None:
    files = [path for path in zoo.path(shipped.name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") < MOST_BYTES
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]


def test_its_card_says_what_was_measured(shipped: Shipped) -> None:
    card = zoo.card(shipped.name)
    assert card["name"] == shipped.name
    assert card["scores"]["pairs"] >= 400
    assert card["aims"]["met"] == {"digit_accuracy_relative_to_real_clips": True, "motion_accuracy": True}
    assert (zoo.path(shipped.name) / "README.md").read_text(encoding="utf-8").startswith("---")


def test_its_sites_are_the_temporal_ones(shipped: Shipped, pipeline: Any) -> None:
    denoiser = getattr(pipeline, denoiser_component(pipeline))
    sites = family_of(denoiser).find_sites(denoiser, "temporal")
    assert tuple(site.name for site in sites) == shipped.sites


@pytest.mark.slow(reason="generates videos")
def test_it_draws_what_it_is_asked_for(shipped: Shipped, pipeline: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = requests(8, 4_000_000)
    videos = shipped.draw(pipeline, wanted, dict(zoo.card(shipped.name)["recommended"]))
    torch.set_num_threads(before)
    found = score(wanted, videos, Judge())
    assert found["digit_accuracy"] >= 0.75
    assert found["motion_accuracy"] >= 0.75


def test_its_prompts_are_the_zoo_s(shipped: Shipped) -> None:
    shared = Path(zoo.__file__).parent / "digits" / "prompts.txt"
    assert (shipped.home / "prompts.txt").read_text() == shared.read_text()
