from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from f3prune.core.errors import ArtifactError, InputError
from f3prune.quality.metrics import frechet_from_features
from f3prune.zoo import features
from f3prune.zoo.digits.dataset import FRAMES, Clips, ClipSource, Digits, load_split
from f3prune.zoo.features.network import FEATURES, STILL, FeatureNetwork
from zoo_training.features import train
from zoo_training.features.augmentation import augment, blur
from zoo_training.features.train import AIM, brightness_of, measure

COUNT = 300
FAR = 5.0
"""How many times the distance of real clips from real clips counts as far above it."""

Videos = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return features.load()


def draw(seed: int, frames: int = FRAMES, digits: tuple[int, ...] = tuple(range(10))) -> Videos:
    split = load_split(held_out=True)
    kept = torch.isin(split.labels, torch.tensor(digits))
    clips: Clips = ClipSource(Digits(split.images[kept], split.labels[kept]), seed).batch(COUNT, frames)
    return brightness_of(clips)[..., None].expand(-1, -1, -1, -1, 3).numpy()


@pytest.fixture(scope="module")
def real() -> Videos:
    return draw(1)


@pytest.mark.parametrize("frames", train.LENGTHS)
def test_knows_held_out_clips(network: FeatureNetwork, frames: int) -> None:
    assert min(measure(network, frames, count=400, seed=7).values()) >= AIM


@pytest.mark.parametrize("spoilt", ["frozen", "blurred", "other digits"])
def test_spoilt_clips_are_far_from_real_ones(network: FeatureNetwork, real: Videos, spoilt: str) -> None:
    other = draw(2)
    nearest = frechet_from_features(network.features(real), network.features(other))
    if spoilt == "frozen":
        other = np.repeat(other[:, :1], FRAMES, axis=1)
    elif spoilt == "blurred":
        other = blur(torch.from_numpy(other[..., 0]), 2.0)[..., None].numpy()
    else:
        other = draw(2, digits=(0, 1, 2, 3, 4))
    assert frechet_from_features(network.features(real), network.features(other)) > FAR * nearest


def test_frames_are_judged_one_by_one(network: FeatureNetwork, real: Videos) -> None:
    found = network.frame_features(real[:4])
    assert found.shape == (4 * FRAMES, FEATURES)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[FRAMES], network.features(np.repeat(real[1:2, :1], STILL, axis=1))[0], atol=1e-5)
    frozen = np.repeat(draw(2)[:, :1], FRAMES, axis=1)[:, :2]
    blurred = blur(torch.from_numpy(frozen[..., 0]), 2.0)[..., None].numpy()
    frames = network.frame_features(real[:, ::4])
    near = frechet_from_features(frames, network.frame_features(draw(2)[:, ::4]))
    assert frechet_from_features(frames, network.frame_features(blurred)) > FAR * near


def test_distance_of_known_distributions() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    assert frechet_from_features(draws, draws) == pytest.approx(0.0, abs=1e-9)
    assert frechet_from_features(draws, draws + 2.0) == pytest.approx(12.0, abs=1e-6)
    assert frechet_from_features(draws, 3.0 * draws) == pytest.approx(4.0 * np.cov(draws.T).trace(), abs=0.02)


def test_unfit_input_is_refused(network: FeatureNetwork, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="five axes"):
        network.features(np.zeros((8, 32, 32, 3), np.float32))
    with pytest.raises(InputError, match="between 0 and 1"):
        network.features(np.full((1, 8, 32, 32, 3), 2.0, np.float32))
    with pytest.raises(InputError, match="at least 4"):
        frechet_from_features(np.zeros((1, 3)), np.zeros((4, 3)))
    with pytest.raises(ArtifactError, match="cannot be read"):
        features.load(tmp_path / "none.safetensors")


def test_augmentation_keeps_shape_and_range() -> None:
    torch.manual_seed(0)
    clips = torch.rand(3, 5, 32, 32)
    spoilt = augment(clips)
    assert spoilt.shape == clips.shape
    assert 0.0 <= float(spoilt.min()) <= float(spoilt.max()) <= 1.0


def test_a_short_training_leaves_weights_that_load(tmp_path: Path) -> None:
    train.main(["--out", str(tmp_path), "--steps", "2", "--batch", "4", "--log", str(tmp_path / "log.jsonl")])
    assert isinstance(features.load(tmp_path / features.WEIGHTS.name), FeatureNetwork)
    assert "not met" in (tmp_path / "README.md").read_text(encoding="utf-8")
