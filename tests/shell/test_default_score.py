"""What units are ranked by when nobody says: leave-one-out where that can be afforded, the same in all commands."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from command_line import f3prune

from f3prune.bench.contest.contest import ContestOptions
from f3prune.calibration import Masks, PruneConfig, calibrate
from f3prune.calibration.auto import modes_to_compare
from f3prune.core.run_directory import RunDirectory
from f3prune.quality.sweep import SweepOptions
from tests.models.cogvideo_subject import inputs_of, tiny
from tests.subjects import subject_of

MODES = ("local", "drop")


@pytest.fixture(scope="module")
def run(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("score") / "run"
    assert f3prune("calibrate", tiny_pipeline, "-o", path, "--steps", 2, "--num-prompts", 1).code == 0
    return path


@pytest.mark.parametrize(
    ("granularity", "score"), [("layer", "leave-one-out"), ("head", "leave-one-out"), ("frame-pair", "aas")]
)
def test_prune_and_sweep_agree(run: Path, granularity: str, score: str) -> None:
    assert f3prune("prune", run, "--alpha", "0.5", "--granularity", granularity).code == 0
    assert RunDirectory.open(run).require("masks").options["score"] == score
    tried = SweepOptions(alphas=(0.5,), granularities=(granularity,), modes=("local",)).configs()
    assert {config.score for config in tried} == {score}


def test_another_score_is_taken_at_its_word(run: Path) -> None:
    assert f3prune("prune", run, "--alpha", "0.5", "--score", "random", "--score-seed", 3).code == 0
    assert RunDirectory.open(run).require("masks").options["score"] == "random"
    tried = SweepOptions(alphas=(0.5,), modes=MODES, scores=("aas", "magnitude")).configs()
    assert {(config.granularity, config.score) for config in tried} == set(
        itertools.product(("layer", "head"), ("aas", "magnitude"))
    )


def test_one_order_serves_every_ratio_and_protection_has_its_own(run: Path) -> None:
    def gone(*options: object) -> set[str]:
        assert f3prune("prune", run, "--score", "greedy", *options).code == 0
        sites = Masks.load(run / "masks.json").stages[0].sites
        return {name for name, mask in sites.items() if not mask.untouched}

    half = gone("--alpha", "0.5")
    all_of_them = gone("--alpha", "1")
    assert 0 < len(half) < len(all_of_them)
    assert half < all_of_them
    (home,) = (run / "scores").glob("greedy*")
    one, *_ = half
    assert one not in gone("--alpha", "1", "--protect", one)
    assert len(list((run / "scores").glob("greedy*"))) == 2
    assert home.is_dir()


@pytest.mark.parametrize("score", ["greedy", "magnitude"])
def test_grids_leave_out_the_pairs_that_a_score_cannot_rank(score: str) -> None:
    grid = ("layer", "head", "frame-pair")
    tried = SweepOptions(alphas=(0.5,), granularities=grid, modes=MODES, scores=("aas", score)).configs()
    assert {(c.granularity, c.mode) for c in tried if c.score == score} == set(
        itertools.product(("layer", "head"), MODES)
    )
    points = ContestOptions(alphas=(0.5,), granularities=grid, modes=("local",)).points(PruneConfig(0.4, score=score))  # type: ignore[arg-type]
    assert {p.granularity for p in points} == {"layer", "head"}


def test_a_contest_keeps_the_score_of_the_run() -> None:
    # A refit that the run has is not asked of modes that cannot be refitted.
    own = PruneConfig(0.4, protect=("*.0",), score="random", score_seed=2, refit=4)
    points = ContestOptions(alphas=(0.5,), granularities=("layer", "head"), modes=MODES).points(own)
    assert {point.refit for point in points} == {0}
    assert {(p.granularity, p.mode) for p in points} == set(itertools.product(("layer", "head"), MODES))
    assert {(p.alpha, p.score, p.score_seed, p.protect) for p in points} == {(0.5, "random", 2, ("*.0",))}


def test_comparisons_try_a_stand_in_that_suits_the_model() -> None:
    cogvideo = tiny()
    calibrations = {
        "temporal": subject_of("latte").calibration,
        "joint": subject_of("cogvideox").calibration,
        "autoregressive": calibrate(cogvideo, lambda: cogvideo(**inputs_of(cogvideo))),
    }
    assert {name: modes_to_compare(found) for name, found in calibrations.items()} == {
        "temporal": ("drop", "local", "static"),
        "joint": ("drop", "local", "pooled:2:1"),
        "autoregressive": ("drop", "local"),
    }
