"""The two probes against plain, slow versions of themselves and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from synthetic_activations import planted

from models.probes.gaussian import fit_gaussian
from models.probes.linear import TrainingSet
from models.probes.logistic import leave_one_out, newton
from models.probes.shrinkage import ledoit_wolf


def training_set(n: int, m: int, units: int, *, missing: float = 0.0) -> TrainingSet:
    """The first half of the labelled lesions are in the reference too."""
    world = planted(n + m, units=units, seed=3)
    h = world.h.astype(float)
    half = n // 2
    labels = world.labels[:n].copy()
    labels[np.random.default_rng(4).random(labels.shape) < missing] = np.nan
    return TrainingSet(
        z=h[:n],
        labels=labels,
        reference=np.concatenate([h[:half], h[n:]]),
        twin=np.where(np.arange(n) < half, np.arange(n), -1),
        groups=np.zeros(units, dtype=np.int64),
        seed=0,
    )


def slow_gaussian(
    present: np.ndarray, reference: np.ndarray, shrinkage: tuple[float, float], at: np.ndarray
) -> float:
    """log N(at; mu_f, S) - log N(at; mu, S), by the definition."""
    mu_f, mu = present.mean(axis=0), reference.mean(axis=0)
    scatter = (present - mu_f).T @ (present - mu_f) + (reference - mu).T @ (reference - mu)
    intensity, ridge = shrinkage
    cov = (1 - intensity) / (len(present) + len(reference)) * scatter + ridge * np.eye(len(mu))
    inverse = np.linalg.inv(cov)
    return 0.5 * float((at - mu) @ inverse @ (at - mu) - (at - mu_f) @ inverse @ (at - mu_f))


@pytest.mark.parametrize(("n", "m", "units"), [(12, 30, 20), (20, 15, 50)])
def test_the_gaussian_is_the_density_ratio_and_leaves_out_exactly(
    n: int, m: int, units: int
) -> None:
    data = training_set(n, m, units, missing=0.1)
    fit = fit_gaussian(data)
    found = ledoit_wolf(data.reference - data.reference.mean(axis=0))
    shrinkage = (found.intensity, found.ridge)
    new = planted(1, units=units, seed=9).h[0].astype(float)
    for f in range(data.labels.shape[1]):
        y = data.labels[:, f]
        expected = slow_gaussian(data.z[y == 1], data.reference, shrinkage, new)
        assert new @ fit.weights[f] + fit.bias[f] == pytest.approx(expected, rel=1e-6, abs=1e-8)
        for i in range(n):
            if np.isnan(y[i]):
                assert np.isnan(fit.held_out[i, f])
                continue
            others = np.arange(n) != i
            rest = data.reference[np.arange(len(data.reference)) != data.twin[i]]
            expected = slow_gaussian(data.z[others & (y == 1)], rest, shrinkage, data.z[i])
            assert fit.held_out[i, f] == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("c", [0.01, 0.3, 5.0])
@pytest.mark.parametrize(("n", "units"), [(40, 8), (15, 60)])
def test_the_regression_is_scikit_learns(n: int, units: int, c: float) -> None:
    world = planted(n, units=units, seed=5)
    x, y = world.h.astype(float), world.labels[:, 0]
    expected = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=500).fit(x, y)
    theta = newton(np.column_stack([x, np.ones(n)]), y, 1 / c)
    np.testing.assert_allclose(theta[:-1], expected.coef_[0], atol=1e-5)
    assert theta[-1] == pytest.approx(expected.intercept_[0], abs=1e-4)


@pytest.mark.parametrize("c", [0.003, 0.1, 3.0])
def test_leave_one_out_is_one_fit_a_lesion(c: float) -> None:
    world = planted(24, units=30, seed=6)
    x, y = np.column_stack([world.h.astype(float), np.ones(24)]), world.labels[:, 1]
    found = leave_one_out(x, y, 1 / c)
    for i in range(24):
        others = np.arange(24) != i
        expected = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(
            x[others, :-1], y[others]
        )
        assert found[i] == pytest.approx(
            float(expected.decision_function(x[i : i + 1, :-1])[0]), abs=1e-3
        )


def test_leave_one_out_of_the_only_present_lesion_is_undefined() -> None:
    x, y = np.column_stack([planted(8).h.astype(float), np.ones(8)]), np.eye(8)[2]
    assert np.flatnonzero(np.isnan(leave_one_out(x, y, 1.0))).tolist() == [2]


def test_a_held_out_score_does_not_know_its_own_label() -> None:
    """Turning a lesion's label moves the scores of others, not its own.

    For the regression at a fixed C: its folds are stratified, so a turned label may move the
    choice of C.
    """
    data = training_set(30, 40, 25)
    labels = data.labels.copy()
    labels[7, 0] = 1 - labels[7, 0]
    turned = TrainingSet(data.z, labels, data.reference, data.twin, data.groups, data.seed)
    before, after = fit_gaussian(data).held_out, fit_gaussian(turned).held_out
    assert after[7, 0] == pytest.approx(before[7, 0], rel=1e-9)
    assert not np.allclose(after[:, 0], before[:, 0])
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])

    x = np.column_stack([data.z, np.ones(30)])
    one, two = (leave_one_out(x, y[:, 0], 10.0) for y in (data.labels, labels))
    assert two[7] == pytest.approx(one[7], abs=1e-5)
    assert not np.allclose(one, two, atol=1e-2)
