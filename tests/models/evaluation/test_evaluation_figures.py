"""Figures against other people's implementations and worked examples."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from models.evaluation.calibration import (
    binary_calibration_error,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    softmax,
)
from models.evaluation.classification import evaluate_classifier
from models.evaluation.detection import evaluate_features
from models.evaluation.intervals import bootstrap, wilson
from models.evaluation.ranking import auroc, auroc_interval


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (7, 10), (53, 60), (1, 1)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert wilson(0, 0) == (0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_scikit_learns_ties_included(rows: list[tuple[int, bool]]) -> None:
    s, y = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if y.all() or not y.any():
        assert np.isnan(auroc(s, y))
        assert auroc_interval(s, y) is None
    else:
        assert auroc(s, y) == pytest.approx(roc_auc_score(y, s))
        assert auroc(-s, y) == pytest.approx(1 - auroc(s, y))
        assert auroc(np.exp(s / 3), y) == pytest.approx(auroc(s, y))


def test_the_bootstrap_covers_the_truth() -> None:
    """95 % intervals of a mean hold the truth in about 95 of 100 repetitions."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        x = rng.normal(size=60)
        ci = bootstrap(lambda i, x=x: float(x[i].mean()), 60, draws=200, seed=seed)
        assert ci is not None
        hits += ci[0] <= 0 <= ci[1]
    assert 0.88 <= hits / 200 <= 0.99
    assert bootstrap(lambda i: float("nan"), 10, draws=20) is None
    assert bootstrap(lambda i: 1.0, 0) is None


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(size=(3000, 6)) * 1.5
    y = np.array([rng.choice(6, p=p) for p in softmax(honest)])
    assert fit_temperature(3 * honest, y) == pytest.approx(3, rel=0.08)
    assert fit_temperature(honest / 2, y) == pytest.approx(0.5, rel=0.08)
    assert fit_temperature(np.zeros((0, 6)), np.zeros(0)) == 1
    t = fit_temperature(3 * honest, y)
    assert log_loss(3 * honest / t, y) < log_loss(3 * honest, y)
    before = expected_calibration_error(softmax(3 * honest), y)
    assert expected_calibration_error(softmax(3 * honest / t), y) < before / 3


def test_a_faultless_split_does_not_make_the_network_infinitely_sure() -> None:
    assert fit_temperature(np.eye(6) * 0.2, np.arange(6)) == pytest.approx(0.05, rel=1e-3)


def test_calibration_error_by_hand() -> None:
    # Two bins: 0.9 claimed and 0.5 right on two lesions, 0.3 claimed and 0 right on two.
    p, y = np.array([0.9, 0.9, 0.3, 0.3]), np.array([1, 0, 0, 0])
    assert binary_calibration_error(p, y) == pytest.approx((2 * 0.4 + 2 * 0.3) / 4)
    assert np.isnan(expected_calibration_error(np.zeros((0, 3)), np.zeros(0)))
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]


def test_the_classifier_by_hand() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]])
    result = evaluate_classifier(p, np.array([0, 1, 1, 2]), ["a", "b", "c"], split="test", draws=50)
    assert result["accuracy"] == 0.75
    assert result["ci"] == pytest.approx(wilson(3, 4), abs=1e-6)
    assert result["confusion"]["counts"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert result["per_class"]["b"]["sensitivity"] == 0.5
    assert result["per_class"]["a"]["ppv"] == 0.5
    assert result["per_class"]["c"]["auroc"] == 1.0
    json.dumps(result, allow_nan=False)


def test_the_classifier_without_lesions_or_a_class() -> None:
    empty = evaluate_classifier(np.zeros((0, 3)), np.zeros(0), ["a", "b", "c"], split="test")
    assert (empty["accuracy"], empty["ci"], empty["n"]) == (None, None, 0)
    lone = evaluate_classifier(np.eye(3)[[0, 1]], np.array([0, 1]), ["a", "b", "c"], split="test")
    assert lone["per_class"]["c"]["sensitivity"] is None
    json.dumps([empty, lone], allow_nan=False)


def test_features_by_hand_leave_out_what_was_not_assessed() -> None:
    p = np.array([[0.9, 0.9], [0.8, 0.2], [0.3, 0.8], [0.1, 0.1]])
    y = np.array([[1, np.nan], [0, 1], [1, 1], [0, np.nan]])
    result = evaluate_features(p, p > 0.5, y, ["f", "g"], split="validation", draws=100)
    # f: found on two (one right), present on two; g: found on two, assessed on one of them.
    assert result["micro_ppv"] == pytest.approx(2 / 3, abs=1e-6)
    assert result["micro_sensitivity"] == 0.5
    assert result["per_feature"]["f"]["auroc"] == 0.75
    assert result["per_feature"]["g"]["auroc"] is None
    assert result["per_feature"]["g"]["ppv"] == 1.0
    assert result["macro_auroc"] == 0.75
    json.dumps(result, allow_nan=False)
