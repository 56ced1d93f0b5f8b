"""The finished zoo:digits-latte: small enough, found by name, and drawing what it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from f3prune import zoo
from f3prune.families import family_of
from f3prune.zoo.digits.judge import Judge
from f3prune.zoo.digits_latte.evaluate import draw_clips
from f3prune.zoo.evaluation import load_pipeline, requests, score

MOST_BYTES = 16_000_000


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(zoo.path("digits-latte"))


def test_it_is_small_and_safe() -> None:
    files = [path for path in zoo.path("digits-latte").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") < MOST_BYTES
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]


def test_its_card_says_what_was_measured() -> None:
    card = zoo.card("digits-latte")
    assert card["name"] == "digits-latte"
    assert card["scores"]["pairs"] >= 400
    assert card["aims"]["met"] == {"digit_accuracy_relative_to_real_clips": True, "motion_accuracy": True}
    assert (zoo.path("digits-latte") / "README.md").read_text(encoding="utf-8").startswith("---")


def test_its_sites_are_the_temporal_blocks(pipeline: Any) -> None:
    sites = family_of(pipeline.transformer).find_sites(pipeline.transformer, "temporal")
    assert [site.name for site in sites] == [f"temporal_transformer_blocks.{k}.attn1" for k in range(4)]


def test_it_draws_what_it_is_asked_for(pipeline: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = requests(8, 4_000_000)
    videos = draw_clips(pipeline, wanted, dict(zoo.card("digits-latte")["recommended"]))
    torch.set_num_threads(before)
    found = score(wanted, videos, Judge())
    assert found["digit_accuracy"] >= 0.75
    assert found["motion_accuracy"] >= 0.75


def test_its_prompts_are_the_zoo_s() -> None:
    home = Path(zoo.__file__).parent
    assert (home / "digits_latte" / "prompts.txt").read_text() == (home / "digits" / "prompts.txt").read_text()
