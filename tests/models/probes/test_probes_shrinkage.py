"""Ledoit-Wolf against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf as reference

from models.probes.shrinkage import covariance, ledoit_wolf


@pytest.mark.parametrize(("n", "d"), [(10, 40), (40, 10), (30, 30), (500, 5), (2, 6)])
def test_it_is_ledoit_and_wolf(n: int, d: int) -> None:
    rng = np.random.default_rng([n, d])
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    x -= x.mean(axis=0)
    expected, intensity = reference(x, assume_centered=True)
    assert ledoit_wolf(x).intensity == pytest.approx(intensity, abs=1e-10)
    np.testing.assert_allclose(covariance(x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("x", [np.zeros((1, 4)), np.zeros((9, 4)), np.ones((3, 1))])
def test_degenerate_samples_can_still_be_inverted(x: np.ndarray) -> None:
    found = covariance(x)
    assert np.isfinite(np.linalg.inv(found)).all()
