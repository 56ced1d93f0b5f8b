"""Skipped denoising steps: what they get, which are chosen, and what they may not be used for."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from f3prune.core.calls import sample_of
from f3prune.core.errors import ArtifactError, InputError
from f3prune.engines import EngineDenoiser, StepReuse, build_engine, open_session
from f3prune.engines.step_reuse import Recording, StepMemory, StepRecorder, candidates, choose, steps_to_skip
from f3prune.families import family_of

TIMESTEPS = (900.0, 700.0, 500.0, 300.0, 100.0)


class Counted:
    """Output ``slope · timestep + 1``, and how often it was asked for."""

    def __init__(self, slope: float = 2.0) -> None:
        self.slope, self.asked = slope, []

    def at(self, timestep: float) -> Any:
        def compute() -> torch.Tensor:
            self.asked.append(timestep)
            return torch.full((1, 2), self.slope * timestep + 1.0)

        return compute


def generate(memory: StepMemory, model: Counted, timesteps: tuple[float, ...] = TIMESTEPS) -> list[float]:
    return [float(memory(timestep, model.at(timestep))[0, 0]) for timestep in timesteps]


def test_a_line_is_continued_exactly_and_skipped_steps_compute_nothing() -> None:
    model, memory = Counted(), StepMemory(StepReuse(TIMESTEPS, (2, 3)))
    assert generate(memory, model) == pytest.approx([2.0 * timestep + 1.0 for timestep in TIMESTEPS])
    assert model.asked == [900.0, 700.0, 100.0]


def test_order_0_repeats_the_last_computed_output() -> None:
    model, memory = Counted(), StepMemory(StepReuse(TIMESTEPS, (1, 3), order=0))
    assert generate(memory, model) == [1801.0, 1801.0, 1001.0, 1001.0, 201.0]


def test_the_next_generation_starts_anew() -> None:
    memory = StepMemory(StepReuse(TIMESTEPS, (2,)))
    generate(memory, Counted(2.0))
    assert generate(memory, Counted(-3.0)) == pytest.approx([-3.0 * timestep + 1.0 for timestep in TIMESTEPS])


def test_a_broken_off_generation_leaves_nothing_behind() -> None:
    memory, model = StepMemory(StepReuse(TIMESTEPS, (2,))), Counted(5.0)
    generate(memory, Counted(2.0), TIMESTEPS[:2])
    # Resumed by somebody else at the skipped step, after forgetting: there is nothing to extrapolate from.
    memory.reset()
    assert generate(memory, model, TIMESTEPS[2:]) == [2501.0, 1501.0, 501.0]
    assert model.asked == [500.0, 300.0, 100.0]


def test_calls_of_guidance_do_not_mix() -> None:
    named, unnamed = (StepMemory(StepReuse(TIMESTEPS, (2, 3))) for _ in range(2))
    up, down = Counted(1.0), Counted(-1.0)
    for timestep in TIMESTEPS:
        for name, model, sign in (("cond", up, 1.0), ("uncond", down, -1.0)):
            with named.context(name):
                assert float(named(timestep, model.at(timestep))[0, 0]) == pytest.approx(sign * timestep + 1.0)
        for model, sign in ((up, 1.0), (down, -1.0)):
            assert float(unnamed(timestep, model.at(timestep))[0, 0]) == pytest.approx(sign * timestep + 1.0)
    assert up.asked == [item for timestep in (900.0, 700.0, 100.0) for item in (timestep, timestep)]


def test_another_number_of_steps_is_refused() -> None:
    memory = StepMemory(StepReuse(TIMESTEPS, (2,)))
    with pytest.raises(InputError, match=r"chosen for 5 steps at 900, 700, …, 100.*step at 850"):
        memory(850.0, Counted().at(850.0))
    # What half precision does to a timestep is no difference.
    assert memory.plan.index_of(float(torch.tensor(300.02))) == 3


@pytest.mark.parametrize(
    ("timesteps", "skipped", "order", "reason"),
    [
        (TIMESTEPS, (0,), 0, "cannot be skipped"),
        (TIMESTEPS, (1,), 1, "before 2 steps"),
        (TIMESTEPS, (4,), 1, "never the last"),
        (TIMESTEPS, (3, 2), 1, "each once, in order"),
        (TIMESTEPS, (2,), 2, "expected 0 or 1"),
        ((1.0, 2.0, 3.0), (), 1, "strictly falling"),
        ((2.0, float("nan"), 1.0), (), 1, "finite"),
    ],
)
def test_what_cannot_be_skipped_is_refused(
    timesteps: tuple[float, ...], skipped: tuple[int, ...], order: int, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        StepReuse(timesteps, skipped, order)


@given(st.lists(st.floats(0, 1000, width=32), min_size=4, max_size=12, unique=True), st.data())
def test_a_plan_is_read_back_as_written(values: list[float], data: st.DataObject) -> None:
    timesteps = tuple(sorted(values, reverse=True))
    plan = StepReuse(timesteps, tuple(sorted(data.draw(st.sets(st.integers(2, len(values) - 2))))))
    assert StepReuse.from_json(plan.to_json()) == plan
    with pytest.raises(ArtifactError, match="version"):
        StepReuse.from_json({**plan.to_json(), "version": 0})
    with pytest.raises(ArtifactError, match=r"run `reuse\(\.\.\.\)`"):
        StepReuse.from_json({"version": 1, "timesteps": 3})


# -- choosing ---------------------------------------------------------------------------------------------------------


class Scripted(nn.Module):
    """A denoiser that answers by a table, whatever the latents are."""

    def __init__(self, answers: dict[float, torch.Tensor]) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor]:
        del hidden_states
        return (self.answers[float(timestep)],)


def denoise(denoiser: nn.Module, start: torch.Tensor) -> torch.Tensor:
    """A two-step scheduler with guidance: affine in the latents, this output and the one before."""
    latents, before = start, None
    for number, timestep in enumerate(TIMESTEPS):
        output = denoiser(hidden_states=latents.repeat(2, 1, 1, 1, 1), timestep=torch.tensor(timestep))[0]
        guided = output[:1] + 3.0 * (output[1:] - output[:1])
        change = guided if before is None else 1.5 * guided - 0.5 * before
        latents, before = (0.9 + 0.01 * number) * latents - 0.1 * (number + 1) * change, guided
    return latents


def scripted(seed: int = 0) -> tuple[dict[float, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    answers = {timestep: torch.randn(2, 2, 3, 4, 4, generator=generator) for timestep in TIMESTEPS}
    return answers, torch.randn(1, 2, 3, 4, 4, generator=generator)


def test_the_effect_of_an_error_is_what_the_scheduler_makes_of_it() -> None:
    answers, start = scripted()
    seen: list[torch.Tensor] = []

    class Watched(StepRecorder):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(kwargs["hidden_states"][:1].clone())
            return super().forward(*args, **kwargs)

    recorder = Watched(Scripted(answers))
    denoise(recorder, start)
    recording = recorder.recording()
    last = seen[-1]
    assert recording.timesteps == TIMESTEPS
    assert recording.outputs.shape == (5, 2, 2 * 3 * 4 * 4)
    for step, sample in itertools.product(range(4), range(2)):
        changed = {**answers, TIMESTEPS[step]: answers[TIMESTEPS[step]].clone()}
        changed[TIMESTEPS[step]][sample] += 1.0
        seen.clear()
        denoise(Watched(Scripted(changed)), start)
        effect = (seen[-1] - last).mean()
        assert float(recording.effects[step, sample]) == pytest.approx(float(effect), abs=1e-3)


def test_two_calls_a_step_are_two_samples() -> None:
    answers, start = scripted()
    recorder = StepRecorder(Scripted({timestep: value[:1] for timestep, value in answers.items()}))
    for timestep in TIMESTEPS:
        for _ in range(2):
            recorder(hidden_states=start, timestep=torch.tensor(timestep))
    assert recorder.recording().outputs.shape[:2] == (5, 2)
    recorder(hidden_states=start, timestep=torch.tensor(900.0))
    recorder(hidden_states=start, timestep=torch.tensor(900.0))
    recorder(hidden_states=start, timestep=torch.tensor(700.0))
    with pytest.raises(ValueError, match="different numbers of samples"):
        recorder.recording()


def random_recording(steps: int, seed: int) -> Recording:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(steps, 1, 6, generator=generator).cumsum(dim=0)
    effects = torch.rand(steps, 1, generator=generator)
    return Recording(tuple(float(steps - index) for index in range(steps)), outputs, effects)


def predicted(recording: Recording, plan: StepReuse) -> float:
    """Sum of the errors of a plan, written down again: run its memory over the recorded outputs."""
    memory, total = StepMemory(plan), 0.0
    for index, timestep in enumerate(recording.timesteps):
        given_ = memory(timestep, lambda index=index: recording.outputs[index])
        total += float(torch.linalg.vector_norm(recording.effects[index, 0] * (given_ - recording.outputs[index])))
    return total


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0, 1]))
def test_the_first_candidate_has_the_least_predicted_error(seed: int, skips: int, order: int) -> None:
    recording = random_recording(8, seed)
    plans = []
    for skipped in itertools.combinations(range(1, 7), skips):
        runs = [len(list(group)) for _, group in itertools.groupby(enumerate(skipped), lambda item: item[1] - item[0])]
        try:
            plan = StepReuse(recording.timesteps, skipped, order)
        except InputError:
            continue
        if max(runs) <= 3:
            plans.append(plan)
    best = min(predicted(recording, plan) for plan in plans)
    assert predicted(recording, candidates(recording, skips, (order,))[0]) == pytest.approx(best, rel=1e-5)


def test_the_order_that_promises_more_comes_first_and_a_hopeless_one_not_at_all() -> None:
    steps = torch.arange(8.0)
    timesteps = tuple(float(value) for value in 8 - steps)
    line = Recording(timesteps, (steps + 0.01 * torch.rand(8)).view(8, 1, 1), torch.ones(8, 1))
    assert {plan.order for plan in candidates(line, 2)} == {1}
    jumps = Recording(timesteps, torch.tensor([0.0, 1.0] * 4).view(8, 1, 1), torch.ones(8, 1))
    assert candidates(jumps, 1)[0].order == 0


def test_the_best_generation_wins_and_too_many_steps_give_no_plan() -> None:
    recording = next(found for seed in range(99) if len(candidates(found := random_recording(10, seed), 3)) > 1)
    plans = candidates(recording, 3)
    for wanted in plans:
        assert choose(recording, 3, lambda plan, wanted=wanted: float(plan == wanted)) == (wanted, 1.0)
    assert choose(recording, 8, lambda plan: 0.0) is None
    assert [steps_to_skip(share, 10) for share in (0.01, 0.34, 0.5)] == [1, 3, 5]


# -- in the engine's denoiser -----------------------------------------------------------------------------------------


def test_an_engine_does_not_run_for_skipped_steps(
    cogvideox: SimpleNamespace, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_engine(cogvideox.onnx, tmp_path / "engine")
    family = family_of(cogvideox.transformer)
    inputs = family.synthetic_inputs(cogvideox.transformer, cogvideox.latents, 2, torch.Generator().manual_seed(1))
    with open_session(tmp_path / "engine") as session:
        ran: list[float] = []
        run = session.run
        monkeypatch.setattr(session, "run", lambda feeds: ran.append(1.0) or run(feeds))
        denoiser = EngineDenoiser(cogvideox.config, session, StepReuse(TIMESTEPS, (2, 3)))

        def call(timestep: float) -> torch.Tensor:
            given_ = {**inputs, "timestep": torch.full_like(inputs["timestep"], int(timestep))}
            return sample_of(denoiser(**given_, return_dict=False))

        outputs = [call(timestep) for timestep in TIMESTEPS]
        assert len(ran) == 3
        torch.testing.assert_close(outputs[2], 2 * outputs[1] - outputs[0], rtol=1e-4, atol=1e-5)
        denoiser._reset_stateful_cache()
        with denoiser.every_step():
            computed = [call(timestep) for timestep in TIMESTEPS]
        assert len(ran) == 8
        denoiser.reuse_steps(None)
        torch.testing.assert_close([call(timestep) for timestep in TIMESTEPS], computed)
        assert torch.equal(outputs[0], computed[0])
        assert not torch.equal(outputs[2], computed[2])
