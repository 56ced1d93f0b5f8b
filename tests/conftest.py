"""What all tests share, and which of them ``make test`` leaves to ``make test-all`` and ``make test-families``."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from f3prune.testing import VARIANTS
from tests.exports import home

REPRESENTATIVE = ("animatediff", "latte", "cogvideox", "wan", "ltx", "hunyuan_video")
"""A temporal UNet and transformer; text before, beside and behind the video; heads that cannot be reordered."""
UNET = "animatediff"
EXPORTED_QUICKLY = "test_4_onnxruntime_equals_baked[animatediff-None-mixed]"
"""A UNet's export takes twenty seconds: of that one, this is the test that ``make test`` has."""
EXPORTING = ("tests/test_graph_invariants.py", "tests/exporter/test_export_families.py")
HEAVY = (*EXPORTING, "tests/engines/test_engine_families.py", "tests/shell/test_family_pipelines.py")
LATER = (
    "consisid", "easyanimate", "wan_vace", "wan_animate", "chronoedit", "anyflow", "helios", "cosmos", "cosmos-2.5",
    "ltx2", "hunyuan_video15", "framepack", "kandinsky5",
)  # fmt: skip
"""Variants whose exports and whole pipelines are left to ``make test-families``: a minute each."""
LONG = (
    "test_outputs_are_those_of_the_class[ltx2]", "test_sound_comes_through_the_engine",
    "test_the_whole_run[both]", *(f"test_generate_with_the_engine[{v}]" for v in ("svd", "modelscope", "animatediff")),
    *(f"test_an_engine_stands_in_for_the_denoiser[{v}]" for v in ("svd", "modelscope", "i2vgen_xl", "tune_a_video")),
    *(f"test_calibrate_and_prune[{v}]" for v in LATER),
)  # fmt: skip
"""Tests of twenty seconds and more, beside others that take the same way with another model."""
OWN_WORKER = (
    "bench/test_contest.py",
    "exporter/test_export_cogvideox.py",
    "models/test_cogvideo_graphs.py",
    "models/test_cogvideo_run.py",
    "shell/test_default_score.py",
    "shell/test_denoiser_alone.py",
    "shell/test_quality.py",
    "shell/test_reuse.py",
    "shell/test_whole_run.py",
)
"""Files whose tests share something that takes long to make: one worker makes it once."""


def variant_of(test: str) -> str | None:
    """The variant among a test's parameters, ``…[latte-head-drop]``."""
    longest = sorted(VARIANTS, key=len, reverse=True)
    return next((v for v in longest if re.search(rf"[\[-]{re.escape(v)}[\]-]", test)), None)


def pytest_configure() -> None:
    """Before any worker starts."""
    home()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Most variants wait for ``make test-all``, and what takes longest of the later ones for ``make test-families``."""
    variant = variant_of(item.nodeid)
    if (variant in LATER and item.nodeid.startswith(HEAVY)) or item.nodeid.endswith(LONG):
        item.add_marker(pytest.mark.exhaustive(reason="exports or runs a later family, or takes long"))
    if variant not in (None, *REPRESENTATIVE):
        item.add_marker(pytest.mark.slow(reason="variants like it are tested"))
    elif variant == UNET and item.nodeid.startswith(EXPORTING) and not item.nodeid.endswith(EXPORTED_QUICKLY):
        item.add_marker(pytest.mark.slow(reason="exports a UNet"))


class ByWhatIsShared(LoadScopeScheduling):
    """Tests of one variant, or of one file of ``OWN_WORKER``, go to one worker; all others to whichever is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0].removeprefix("tests/")
        return variant_of(nodeid) or (file if file in OWN_WORKER else nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Groups by marks need a node's identifier to be changed, which pytest 9.2 does not allow any more."""
    return ByWhatIsShared(config, log)


@pytest.fixture(autouse=True, scope="session")
def quiet_tracing():
    """Tracing logs every symbol at DEBUG when a handler listens, as pytest's capture does: exports slow down."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
