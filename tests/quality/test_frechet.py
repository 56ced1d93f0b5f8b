"""The Fréchet distance: closed forms, invariants, and the numbers of published implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from f3prune.core.errors import InputError
from f3prune.quality.metrics import frechet_distance, frechet_from_features


def gaussian(seed, width=5):
    draw = np.random.default_rng(seed)
    factor = draw.standard_normal((width, width))
    return draw.standard_normal(width), factor @ factor.T


def test_diagonal_covariances_have_the_closed_form():
    spread_a, spread_b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 2.0])
    found = frechet_distance(np.zeros(3), np.diag(spread_a), np.array([1.0, 2.0, 0.0]), np.diag(spread_b))
    assert found == pytest.approx(5.0 + np.square(np.sqrt(spread_a) - np.sqrt(spread_b)).sum(), abs=1e-12)


def test_commuting_covariances_have_the_closed_form():
    basis = ortho_group.rvs(4, random_state=0)
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 0.5, 3.0, 9.0])
    found = frechet_distance(np.zeros(4), basis * a @ basis.T, np.zeros(4), basis * b @ basis.T)
    assert found == pytest.approx(np.square(np.sqrt(a) - np.sqrt(b)).sum(), abs=1e-10)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 3))
def test_invariants(seed, step):
    (mean_a, cov_a), (mean_b, cov_b) = gaussian(seed), gaussian(seed + 1)
    distance = frechet_distance(mean_a, cov_a, mean_b, cov_b)
    turn = ortho_group.rvs(5, random_state=seed)
    assert frechet_distance(mean_a, cov_a, mean_a, cov_a) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(mean_b, cov_b, mean_a, cov_a) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    turned = frechet_distance(turn @ mean_a, turn @ cov_a @ turn.T, turn @ mean_b, turn @ cov_b @ turn.T)
    assert turned == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert frechet_distance(mean_a, cov_a, mean_a + step, cov_a) == pytest.approx(5 * step**2, abs=1e-6)


def test_equals_the_matrix_square_root_of_pytorch_fid_and_stylegan_v():
    (mean_a, cov_a), (mean_b, cov_b) = gaussian(3, 32), gaussian(4, 32)
    published = np.square(mean_a - mean_b).sum() + np.real(np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b)))
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(published, rel=1e-9)


def test_equals_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Corner(torch.nn.Module):
        num_features = 12

        def forward(self, images):
            return images[:, :, :2, :2].reshape(len(images), -1).double() / 255.0

    metric = FrechetInceptionDistance(feature=Corner(), input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    draw = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (60, 3, 4, 4), generator=draw, dtype=torch.uint8)
    b = torch.randint(50, 200, (80, 3, 4, 4), generator=draw, dtype=torch.uint8)
    metric.update(a, real=True)
    metric.update(b, real=False)
    features = [Corner()(images).numpy() for images in (a, b)]
    assert frechet_from_features(*features) == pytest.approx(float(metric.compute()), rel=1e-9)


def test_singular_covariances_are_fine():
    rank_one = np.ones((3, 3))
    # Eigenvalues that should be zero come out as 1e-15 or so, and their square roots count.
    assert frechet_distance(np.zeros(3), rank_one, np.zeros(3), 4 * rank_one) == pytest.approx(3.0, abs=1e-6)


def test_too_few_rows_say_how_many_are_needed():
    with pytest.raises(InputError, match=r"the first set has 4 feature rows of 4 dimensions.*at least 5"):
        frechet_from_features(np.zeros((4, 4)), np.zeros((9, 4)))


def test_wrong_shapes_and_values_are_named():
    mean, cov = gaussian(0)
    with pytest.raises(InputError, match="features of one network"):
        frechet_distance(mean, cov, np.zeros(3), np.eye(3))
    with pytest.raises(InputError, match="not square"):
        frechet_distance(mean, cov[:2], mean, cov)
    with pytest.raises(InputError, match="not finite"):
        frechet_distance(mean, cov * np.nan, mean, cov)
    with pytest.raises(InputError, match="not finite"):
        frechet_distance(mean * np.inf, cov, mean, cov)
    with pytest.raises(InputError, match="expected n d"):
        frechet_from_features(np.zeros(4), np.zeros((9, 4)))
