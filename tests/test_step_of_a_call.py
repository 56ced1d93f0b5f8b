"""A call's step is its largest timestep, wherever a step is asked for: clean frames of a condition are held at 0."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from f3prune.calibration import StagedDenoiser
from f3prune.core.calls import step_of
from f3prune.core.captured_calls import record_calls
from f3prune.engines import EngineDenoiser
from tests.subjects import subject_of

PER_TOKEN = torch.tensor([[0.0, 0.0, 937.5, 937.5]])


@pytest.mark.parametrize("given", [937.5, torch.tensor(937.5), torch.tensor([937.5, 937.5]), PER_TOKEN])
def test_it_is_the_largest(given) -> None:
    assert step_of(given) == 937.5


class Named(nn.Module):
    """Says which stage ran."""

    def __init__(self, name: float) -> None:
        super().__init__()
        self.name = name

    def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return torch.full_like(hidden_states, self.name)


def test_a_stage_is_chosen_by_it() -> None:
    subject = subject_of("latte")
    from f3prune.calibration import PruneConfig, select_masks

    masks = select_masks(subject.calibration, PruneConfig(0.5, stages=2, score="aas"))
    staged = StagedDenoiser(masks, [Named(0.0), Named(1.0)])
    states = torch.zeros(1, 2)
    assert float(staged(states, PER_TOKEN).max()) == masks.stage_of(937.5) == 0
    assert float(staged(states, torch.zeros(1, 4)).max()) == 1


def test_a_recorded_call_belongs_to_it() -> None:
    model = Named(0.0)
    calls = record_calls(model, lambda: model(torch.zeros(1, 2), PER_TOKEN))
    assert [timestep for timestep, _ in calls] == [937.5]


def test_an_engine_of_stages_is_chosen_by_it() -> None:
    """The session is asked for at that step; none is run here."""
    asked: list[float] = []

    class Stop(Exception):
        pass

    def choose(timestep: float):
        asked.append(timestep)
        raise Stop

    engine = EngineDenoiser(copy.deepcopy(subject_of("latte").denoiser), choose)
    with pytest.raises(Stop):
        engine._compute(None, {"timestep": PER_TOKEN})  # type: ignore[arg-type]
    assert asked == [937.5]
