"""An engine denoiser returns what its class returns: several outputs, one in a tuple, or a tensor alone."""

from __future__ import annotations

import pytest
import torch

from f3prune.core.calls import outputs_of
from f3prune.engines import BuildConfig, build_engine, open_session
from f3prune.engines.denoiser import EngineDenoiser
from f3prune.engines.step_reuse._memory import extrapolate
from f3prune.families import family_of
from tests.exports import exported


@pytest.mark.parametrize("variant", ["ltx2", "kandinsky5", "wan"])
def test_outputs_are_those_of_the_class(variant, tmp_path):
    subject = exported(variant)
    build_engine(subject.result.path, tmp_path, BuildConfig(cache=False, threads=1))
    names = family_of(subject.denoiser).outputs
    inputs = subject.inputs(2)
    with open_session(tmp_path, "cpu") as session, torch.no_grad():
        engine = EngineDenoiser(subject.denoiser, session)
        for returning in ({"return_dict": False}, {}):
            expected, found = (denoise(**inputs, **returning) for denoise in (subject.denoiser, engine))
            assert type(found) is type(expected)
            if isinstance(expected, tuple):
                assert len(found) == len(expected) == len(names)
            answers = outputs_of(found, names)
            for name, output in outputs_of(expected, names).items():
                torch.testing.assert_close(answers[name], output, rtol=1e-3, atol=1e-3)


def test_every_output_of_a_skipped_step_is_extrapolated():
    first, second = (torch.tensor([0.0]), torch.tensor([5.0, 7.0])), (torch.tensor([2.0]), torch.tensor([6.0, 6.0]))
    sample, audio = extrapolate([(900.0, first), (800.0, second)], 700.0, 1)
    assert torch.equal(sample, torch.tensor([4.0]))
    assert torch.equal(audio, torch.tensor([7.0, 5.0]))
    assert [part.tolist() for part in extrapolate([(800.0, second)], 700.0, 0)] == [[2.0], [6.0, 6.0]]
