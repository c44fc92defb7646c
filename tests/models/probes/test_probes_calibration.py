"""Ten labels don't give certainty; what can't be seen is never found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from models.probes.calibration import (
    FALSE_FINDS,
    NEVER,
    above_chance,
    calibrate,
    operating_point,
    prior,
)


def test_perfect_separation_of_ten_lesions_stays_modest() -> None:
    y = np.repeat([1.0, 0.0], 5)
    calibration = calibrate(np.where(y == 1, 50.0, -50.0) + np.arange(10) / 10, y)
    p = calibration.probability(np.array([-1e9, -50, 0, 50, 1e9]))
    assert p.min() == pytest.approx(1 / 7)
    assert p.max() == pytest.approx(6 / 7)
    assert (np.diff(p) >= 0).all()
    assert 1 / 7 < calibration.threshold < 6 / 7


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 25), st.integers(2, 25), st.integers(0, 10_000), st.floats(-1, 3))
def test_probabilities_rise_with_the_score_and_keep_their_bounds(
    n1: int, n0: int, seed: int, gap: float
) -> None:
    rng = np.random.default_rng(seed)
    y = np.repeat([1.0, 0.0], [n1, n0])
    s = rng.normal(size=n1 + n0) * 10 + gap * 10 * y
    calibration = calibrate(s, y)
    p = calibration.probability(np.linspace(-500, 500, 101))
    assert (np.diff(p) >= 0).all()
    assert p.min() >= 1 / (n0 + n1 + 2)
    assert p.max() <= (n1 + n0 + 1) / (n1 + n0 + 2)
    assert 0 < calibration.threshold <= 1
    order = rng.permutation(n1 + n0)
    again = calibrate(s[order], y[order])
    np.testing.assert_allclose(again.probability(s), calibration.probability(s), atol=1e-7)


def test_the_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    s = rng.normal(size=4000)
    y = (rng.random(4000) < 1 / (1 + np.exp(-(2 * s - 1)))).astype(float)
    calibration = calibrate(s, y)
    assert calibration.slope == pytest.approx(2, rel=0.1)
    assert calibration.intercept == pytest.approx(-1, rel=0.15)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([], 0.5),
        ([np.nan, np.nan], 0.5),
        ([0, 0, 0], 0.2),
        ([1, 0, 0, 0], 2 / 6),
        ([1, 1, 1], 0.8),
    ],
)
def test_too_few_lesions_give_the_prior_and_no_finding(y: list[float], expected: float) -> None:
    labels = np.array(y, dtype=float)
    calibration = calibrate(np.arange(len(y), dtype=float), labels)
    assert prior(labels) == pytest.approx(expected)
    assert calibration.probability(np.array([-1e6, 1e6])) == pytest.approx(expected)
    assert calibration.threshold == NEVER


@pytest.mark.parametrize("scores", [np.zeros(12), np.tile([-1.0, 1.0], 6), np.full(12, np.nan)])
def test_scores_no_better_than_chance_give_the_prior(scores: np.ndarray) -> None:
    y = np.tile([1.0, 0.0], 6)
    calibration = calibrate(scores, y)
    assert calibration.probability(np.array([3.0]))[0] == pytest.approx(0.5)
    assert calibration.threshold == NEVER


def test_the_operating_point_lies_between_lesions_and_keeps_the_ppv() -> None:
    p = np.array([0.9, 0.8, 0.7, 0.3, 0.1, 0.1])
    t = operating_point(p)
    # F1 = 2 * sum(p >= t) / (count + sum(p)): .465, .694, .814, .783, ... the third is best.
    assert t == pytest.approx(0.5)
    flat = np.linspace(0.2, 0.3, 20)
    assert operating_point(flat) == NEVER
    weak = np.concatenate([[0.7], np.full(30, 0.2)])
    t = operating_point(weak)
    assert weak[weak >= t].mean() >= 0.5


@pytest.mark.parametrize("ties", [False, True])
def test_chance_is_told_as_a_rank_test_tells_it(ties: bool) -> None:
    rng = np.random.default_rng(0)
    verdicts = []
    for shift in np.linspace(0, 1.5, 40):
        y = rng.random(60) < 0.25
        s = rng.normal(size=60) + shift * y
        s = np.round(s) if ties else s
        p = mannwhitneyu(s[y], s[~y], alternative="greater", method="asymptotic").pvalue
        verdicts.append(above_chance(s, y))
        assert verdicts[-1] == (p < FALSE_FINDS)
    assert 5 < sum(verdicts) < 35


def test_what_is_not_above_chance_is_never_found() -> None:
    """Scores in the right order by luck: a slope is fitted, but nothing is ever found."""
    s, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0])
    few, many = calibrate(s, y), calibrate(np.tile(s, 5) + np.arange(20) * 0.01, np.tile(y, 5))
    assert few.slope > 0
    assert few.threshold == NEVER
    assert many.threshold < NEVER
