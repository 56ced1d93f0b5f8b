"""A denoiser with stages hands every call to the stage of its timestep."""

import copy
import shutil

import pytest
import torch
from subjects import Subject

from f3prune.calibration import PruneConfig, StagedDenoiser, load_pruned, prune_denoiser, save_pruned, select_masks
from f3prune.core.errors import ArtifactError, InputError


@pytest.fixture
def saved(tmp_path):
    """Two stages of a tiny CogVideoX, saved as ``prune --stages 2`` saves them, with its masks and inputs."""
    subject = Subject("cogvideox")
    masks = select_masks(subject.calibration, PruneConfig(0.5, granularity="head", stages=2, score="aas"))
    for stage in range(2):
        save_pruned(prune_denoiser(copy.deepcopy(subject.denoiser), masks, stage), tmp_path / f"stage-{stage}")
    return tmp_path, masks, subject.inputs


def test_each_timestep_goes_to_its_stage(saved):
    path, masks, inputs = saved
    staged = load_pruned(path)
    assert isinstance(staged, StagedDenoiser)
    assert staged.config["num_layers"] == load_pruned(path / "stage-0").config["num_layers"]
    with torch.no_grad():
        lowest = masks.stages[0].timesteps[1]
        for timestep, stage in ((999, 0), (lowest, 0), (lowest - 1, 1), (0, 1)):
            at = {**inputs, "timestep": torch.full_like(inputs["timestep"], timestep)}
            expected = load_pruned(path / f"stage-{stage}")(**at).sample
            assert masks.stage_of(float(timestep)) == stage
            assert torch.equal(staged(**at).sample, expected)
            positional = [at.pop(name) for name in ("hidden_states", "encoder_hidden_states", "timestep")]
            assert torch.equal(staged(*positional, **at).sample, expected)


def test_a_call_without_timestep_is_refused(saved):
    path, _, inputs = saved
    with pytest.raises(InputError, match="pass timestep"):
        load_pruned(path)(inputs["hidden_states"])


def test_stages_of_other_masks_are_refused(saved):
    path, masks, _ = saved
    with pytest.raises(InputError, match="1 denoisers for 2 stages"):
        StagedDenoiser(masks, [torch.nn.Identity()])
    shutil.rmtree(path / "stage-1")
    shutil.copytree(path / "stage-0", path / "stage-1")
    with pytest.raises(ArtifactError, match="do not belong together"):
        load_pruned(path)
