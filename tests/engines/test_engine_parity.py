from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from f3prune.core.captured_calls import CapturedCall, plain_arguments, watching
from f3prune.core.errors import ArtifactError, CheckFailed, InputError
from f3prune.engines import CheckBounds, CheckReport, Comparison, compare, parity, teacher_forced
from f3prune.engines.check import Coupling, ParityNumbers, StepParity

NAN, INF = float("nan"), float("inf")


def test_numbers_by_hand() -> None:
    numbers = parity(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
    assert numbers.max_abs == 1
    assert numbers.rel_l2 == pytest.approx(1 / 5)
    assert numbers.cosine == pytest.approx(21 / (5 * math.sqrt(18)))
    assert (numbers.elements, numbers.non_finite) == (2, "")


@pytest.mark.parametrize(
    ("reference", "candidate", "rel_l2", "cosine"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0, 1.0),
        ([1.0, 2.0], [-1.0, -2.0], 2.0, -1.0),
        ([1.0, 0.0], [0.0, 1.0], math.sqrt(2), 0.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0, 1.0),
        ([0.0, 0.0], [0.0, 1.0], INF, 0.0),
        ([0.0, 1.0], [0.0, 0.0], 1.0, 0.0),
    ],
)
def test_corners(reference: list[float], candidate: list[float], rel_l2: float, cosine: float) -> None:
    numbers = parity(torch.tensor(reference), torch.tensor(candidate))
    assert numbers.rel_l2 == pytest.approx(rel_l2)
    assert numbers.cosine == pytest.approx(cosine)


def test_what_is_not_finite_is_named_and_left_out() -> None:
    numbers = parity(torch.tensor([1.0, NAN, 2.0, 5.0]), torch.tensor([1.0, 0.0, INF, NAN]))
    assert numbers.non_finite == "reference has 1 NaN, candidate has 1 NaN, candidate has 1 Inf"
    assert (numbers.max_abs, numbers.elements) == (0, 4)
    nothing = parity(torch.tensor([NAN]), torch.tensor([1.0]))
    assert math.isnan(nothing.rel_l2)


def test_low_precision_is_compared_in_float64() -> None:
    half = torch.full((100_000,), 60000.0, dtype=torch.float16)
    assert parity(half, half).rel_l2 == 0
    assert parity(half.float(), half.bfloat16()).rel_l2 < 2e-3


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match=r"shape \[3\] with a reference of shape \[2\]"):
        parity(torch.zeros(2), torch.zeros(3))


class Denoiser(torch.nn.Module):
    """``sample = gain · hidden_states + timestep``."""

    def __init__(self, gain: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.gain, self.offset = gain, offset

    def forward(self, hidden_states: torch.Tensor, timestep: Any, return_dict: bool = True) -> Any:
        sample = self.gain * hidden_states + timestep + self.offset
        return {"sample": sample} if return_dict else (sample,)


def loop(denoiser: torch.nn.Module) -> torch.Tensor:
    latents = torch.ones(1, 2)
    for timestep in (2, 1):
        for _ in range(2):
            latents = latents + denoiser(latents, timestep=torch.tensor(timestep), return_dict=False)[0]
    return latents


def recorded(denoiser: torch.nn.Module) -> list[CapturedCall]:
    calls: list[CapturedCall] = []

    def see(timestep: float, arguments: dict[str, Any]) -> None:
        calls.append(CapturedCall(timestep, plain_arguments(arguments)))

    with watching(denoiser, see):
        loop(denoiser)
    loop(denoiser)
    return calls


def test_teacher_forced_errors_do_not_feed_the_next_step() -> None:
    dense, pruned = Denoiser(), Denoiser(offset=0.5)
    seen = []
    calls = recorded(dense)
    steps = teacher_forced(dense, pruned, calls, progress=lambda done, total: seen.append((done, total)))
    assert [(item.step, item.timestep) for item in steps] == [(0, 2.0), (0, 2.0), (1, 1.0), (1, 1.0)]
    assert [item.numbers.max_abs for item in steps] == [0.5] * 4
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def make_report() -> CheckReport:
    dense, pruned, engine = Denoiser(), Denoiser(offset=0.5), Denoiser(offset=0.5 + 1e-6)
    calls, video = recorded(dense), loop(dense)
    return CheckReport(
        export=compare(("pruned", "engine"), pruned, engine, calls, CheckBounds.for_export("fp32")),
        pruning=compare(("dense", "pruned"), dense, pruned, calls, videos=(video, loop(pruned))),
        coupling={"dense": Coupling([[1.0, 0.5], [INF, 1.0]]), "pruned": Coupling([[1.0, 0.0], [0.0, 1.0]])},
    )


def test_the_two_errors_are_reported_apart() -> None:
    report = make_report()
    assert report.passed
    assert report.export.worst is not None
    assert report.export.worst.numbers.rel_l2 < 1e-5
    assert report.pruning is not None
    assert report.pruning.worst is not None
    assert report.pruning.worst.numbers.max_abs == 0.5
    assert report.pruning.psnr is not None
    report.require()


def test_reports_survive_json(tmp_path: Path) -> None:
    report = make_report()
    assert CheckReport.from_json(report.to_json()) == report
    (tmp_path / "check.json").write_text(report.to_json())
    assert CheckReport.read(tmp_path / "check.json") == report
    assert json.loads(report.to_json())["coupling"]["dense"]["responding"] == [[0, 1], [0, 1]]
    with pytest.raises(ArtifactError, match="no check report"):
        CheckReport.read(tmp_path / "other.json")
    for wrong in ("{}", "[]", "", report.to_json().replace('"version": 2', '"version": 7')):
        with pytest.raises(ArtifactError):
            CheckReport.from_json(wrong)


def comparison(bounds: CheckBounds, psnr: float | None = None, **numbers: Any) -> Comparison:
    values = {"max_abs": 0.1, "rel_l2": 0.01, "cosine": 0.999, "elements": 10, **numbers}
    return Comparison("a", "b", (StepParity(3, 800.0, ParityNumbers(**values)),), bounds, psnr)


@pytest.mark.parametrize(
    ("made", "failure"),
    [
        (comparison(CheckBounds()), None),
        (comparison(CheckBounds(rel_l2=0.01, cosine=0.999, max_abs=0.1)), None),
        (comparison(CheckBounds(rel_l2=1e-3)), "step 3 (timestep 800): relative L2 0.01 is above 0.001"),
        (comparison(CheckBounds(cosine=0.9999)), "step 3 (timestep 800): cosine 0.999000 is below 0.9999"),
        (comparison(CheckBounds(max_abs=0.01)), "step 3 (timestep 800): max abs 0.1 is above 0.01"),
        (comparison(CheckBounds(psnr=30), psnr=20.0), "final video: PSNR 20.00 dB is below 30 dB"),
        (comparison(CheckBounds(), candidate_nan=2), "step 3 (timestep 800): candidate has 2 NaN"),
        (comparison(CheckBounds(rel_l2=1), rel_l2=NAN), "step 3 (timestep 800): relative L2 nan is above 1"),
    ],
)
def test_bounds(made: Comparison, failure: str | None) -> None:
    assert made.failures == ((failure,) if failure else ())
    report = CheckReport(export=made)
    if failure is None:
        report.require()
    else:
        with pytest.raises(CheckFailed, match=r"^check failed: export: "):
            report.require()


def test_the_worst_step_is_the_one_that_is_not_finite() -> None:
    good = StepParity(0, 9.0, ParityNumbers(1.0, 1.0, 1.0, 1))
    broken = StepParity(1, 8.0, ParityNumbers(NAN, NAN, NAN, 1, candidate_nan=1))
    assert Comparison("a", "b", (good, broken)).worst is broken
    assert Comparison("a", "b", ()).worst is None


def test_bounds_know_three_dtypes() -> None:
    assert CheckBounds.for_export("fp32").rel_l2 == 1e-4
    with pytest.raises(InputError, match="no bounds for dtype 'int8'"):
        CheckBounds.for_export("int8")
