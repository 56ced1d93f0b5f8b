from __future__ import annotations

import json
import subprocess
import sys

import pytest

from f3prune import zoo
from f3prune.core.errors import InputError

LIMIT = 16_000_000
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


def test_names_and_path_agree() -> None:
    assert "digits" in zoo.names()
    for name in zoo.names():
        assert (zoo.path(name) / "model_index.json").is_file()
    assert zoo.path("zoo:digits") == zoo.path("digits")


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(InputError, match=r"'letters'.*digits"):
        zoo.path("letters")


@pytest.mark.parametrize("name", zoo.names())
def test_pipelines_are_small_and_hold_no_pickles(name: str) -> None:
    files = [file for file in zoo.path(name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LIMIT
    assert not [file for file in files if file.suffix in PICKLES]
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".md"}


def test_card_matches_the_files() -> None:
    card = zoo.card("digits")
    transformer = json.loads((zoo.path("digits") / "transformer" / "config.json").read_text(encoding="utf-8"))
    assert card["clip"]["num_frames"] == transformer["sample_frames"]
    assert card["recommended"]["num_inference_steps"] > 0
    assert card["scores"]["pairs"] >= 200
    readme = (zoo.path("digits") / "README.md").read_text(encoding="utf-8")
    assert f"{card['scores']['digit_accuracy']:.1%}" in readme
    assert f"{card['scores']['motion_accuracy']:.1%}" in readme


def test_importing_the_registry_does_not_import_torch() -> None:
    code = "import sys, f3prune.zoo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
