"""Ridge in dual form against its definition, and the choice of its penalty."""

from __future__ import annotations

import numpy as np
import pytest

from models.relevance.ridge import PENALTIES, Ridge, choose


def data(n: int = 12, d: int = 30, t: int = 3, signal: float = 1.0, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, signal * x @ rng.normal(size=(d, t)) + 0.1 * rng.normal(size=(n, t))


def primal(x, y, penalty):  # type: ignore[no-untyped-def]
    """The same regression as everybody writes it."""
    z = x - x.mean(axis=0)
    scale = (z**2).sum() / len(x)
    weights = np.linalg.solve(
        z.T @ z + penalty * scale * np.eye(x.shape[1]), z.T @ (y - y.mean(axis=0))
    )
    return lambda new: y.mean(axis=0) + (new - x.mean(axis=0)) @ weights


@pytest.mark.parametrize("penalty", [0.01, 1.0, 10.0])
def test_dual_equals_primal(penalty: float) -> None:
    x, y = data()
    ridge = Ridge.of(x, y)
    new = np.random.default_rng(1).normal(size=(5, 30))
    found = ridge.target_mean + (new - ridge.mean) @ (x - ridge.mean).T @ ridge.coefficients(
        penalty
    )
    np.testing.assert_allclose(found, primal(x, y, penalty)(new), atol=1e-9)


def test_left_out_residuals_equal_refits_at_the_same_absolute_penalty() -> None:
    x, y = data()
    ridge, penalty = Ridge.of(x, y), 0.3
    absolute = penalty * ridge.length
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        z = x[rest] - x[rest].mean(axis=0)
        refit = primal(x[rest], y[rest], absolute / ((z**2).sum() / rest.sum()))
        np.testing.assert_allclose(ridge.left_out(penalty)[i], y[i] - refit(x[i]), atol=1e-8)


def test_signal_asks_for_a_small_penalty_and_noise_for_the_largest() -> None:
    strong = [Ridge.of(*data(n=60, d=8, seed=s)) for s in range(3)]
    rng = np.random.default_rng(3)
    noise = [Ridge.of(rng.normal(size=(20, 40)), rng.normal(size=(20, 3))) for _ in range(6)]
    assert choose(strong) == PENALTIES[0]
    assert choose(noise) == PENALTIES[-1]


def test_degenerate() -> None:
    assert choose([]) == PENALTIES[-1]
    one = Ridge.of(np.ones((1, 4)), np.full((1, 2), 3.0))
    np.testing.assert_array_equal(one.coefficients(1.0), 0.0)
    np.testing.assert_array_equal(one.left_out(1.0), 0.0)
    same = Ridge.of(np.ones((3, 4)), np.array([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(same.left_out(1.0).ravel(), [-3.0, -1.5, 4.5])
    assert choose([one, same]) == PENALTIES[-1]
    with pytest.raises(ValueError, match="rows"):
        Ridge.of(np.zeros((0, 4)), np.zeros((0, 2)))
