"""Every draw's figure is what scikit-learn or scipy say of the lesions drawn, one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from models.evaluation.correlation import (
    agreement_drawn,
    multiple_correlation,
    out_of_fold,
    pearson_drawn,
    spearman_drawn,
)
from models.evaluation.detection import compare_detections, measure_detection
from models.evaluation.drawn import (
    ap_drawn,
    auroc_drawn,
    macro_auroc,
    mean_drawn,
    micro_ppv,
    micro_sensitivity,
    within_class,
)
from models.evaluation.multiplicity import corrected, holm
from models.evaluation.resampling import difference, figure, interval, multiplicities
from models.evaluation.selective import caught, error_auroc, risk_coverage


def drawn_rows(w: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(w)), w.astype(int))


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 40), st.integers(0, 10_000), st.booleans())
def test_ranking_figures_of_each_draw_are_scikit_learns(n: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(float)
    s = rng.integers(0, 4, n).astype(float) if ties else rng.normal(size=n)
    w = multiplicities(n, draws=6, seed=seed)
    area, precision = auroc_drawn(s, y, w), ap_drawn(s, y, w)
    for b in range(len(w)):
        i = drawn_rows(w[b])
        if y[i].min() == y[i].max():
            assert np.isnan(area[b])
        else:
            assert area[b] == pytest.approx(roc_auc_score(y[i], s[i]))
        if y[i].any():
            assert precision[b] == pytest.approx(average_precision_score(y[i], s[i]))
        else:
            assert np.isnan(precision[b])


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 40), st.integers(0, 10_000), st.booleans())
def test_correlations_of_each_draw_are_scipys(n: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, n).astype(float) if ties else rng.normal(size=n)
    y = x + rng.normal(size=n)
    w = multiplicities(n, draws=5, seed=seed)
    rank, line = spearman_drawn(x, y, w), pearson_drawn(x, y, w)
    for b in range(len(w)):
        i = drawn_rows(w[b])
        if len(set(x[i])) > 1 and len(set(y[i])) > 1:
            assert rank[b] == pytest.approx(spearmanr(x[i], y[i]).statistic)
            assert line[b] == pytest.approx(pearsonr(x[i], y[i]).statistic)
        else:
            assert np.isnan(rank[b])


def test_groups_are_drawn_whole_and_names_do_not_matter() -> None:
    w = multiplicities(6, draws=40, groups=["p", "q", "q", "r", "r", "r"])
    assert (w[:, 1] == w[:, 2]).all()
    assert (w[:, 3] == w[:, 5]).all()
    assert (w[1:, 0] + w[1:, 1] + w[1:, 3] == 3).all()
    np.testing.assert_array_equal(w, multiplicities(6, draws=40, groups=[7, 1, 1, 0, 0, 0]))
    np.testing.assert_array_equal(w[0], np.ones(6))
    assert multiplicities(0, draws=3).shape == (4, 0)


def test_patients_with_many_equal_lesions_widen_the_interval() -> None:
    """Ten copies of a lesion are one lesion: the interval by patient knows, by lesion does not."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=30), 10)
    lesion = interval(mean_drawn(x, multiplicities(300, draws=400)))
    patient = interval(
        mean_drawn(x, multiplicities(300, draws=400, groups=np.repeat(range(30), 10).tolist()))
    )
    assert lesion is not None
    assert patient is not None
    assert patient[1] - patient[0] == pytest.approx(np.sqrt(10) * (lesion[1] - lesion[0]), rel=0.25)


def test_paired_intervals_cover_the_true_difference() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(120):
        common = rng.normal(size=80)
        a, b = common + rng.normal(0.2, 0.3, 80), common + rng.normal(0, 0.3, 80)
        w = multiplicities(80, draws=200, seed=seed)
        low, high = difference(mean_drawn(a, w), mean_drawn(b, w))["ci"]
        hits += low <= 0.2 <= high
    assert 0.88 <= hits / 120 <= 0.995


def test_a_difference_of_nothing_has_no_small_p() -> None:
    w = multiplicities(50, draws=199)
    x = mean_drawn(np.random.default_rng(2).normal(size=50), w)
    assert difference(x, x) == {"difference": 0.0, "ci": [0.0, 0.0], "p": 1.0}
    assert difference(x + 1, x)["p"] == pytest.approx(2 / 200)
    assert difference(x * np.nan, x) == {"difference": None, "ci": None, "p": None}
    assert figure(np.full(5, np.nan)) == {"value": None, "ci": None}


def test_within_class_a_class_predictor_is_blind_and_a_feature_detector_is_not() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 600)
    labels = (rng.random(600) < np.array([0.2, 0.5, 0.8])[classes]).astype(float)[:, None]
    w = multiplicities(600, draws=20)
    assert (within_class(classes[:, None].astype(float), labels, classes, w) == 0.5).all()
    assert (within_class(labels, labels, classes, w) == 1.0).all()
    assert np.isnan(within_class(labels, np.ones((600, 1)), classes, w)).all()


def test_micro_figures_by_hand() -> None:
    y = np.array([[1, np.nan], [0, 1], [1, 1], [0, np.nan]])
    found = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool)
    w = np.array([[1, 1, 1, 1], [0, 2, 1, 1]], dtype=np.float32)
    assert micro_ppv(found, y, w) == pytest.approx([2 / 3, 1 / 3])
    assert micro_sensitivity(found, y, w) == pytest.approx([2 / 4, 1 / 4])


def test_a_detector_is_measured_over_its_fits_and_compared_in_pairs() -> None:
    rng = np.random.default_rng(3)
    y = (rng.random((200, 3)) < 0.3).astype(float)
    good = np.stack([y + rng.normal(0, 0.7, y.shape) for _ in range(2)])
    poor = np.stack([y + rng.normal(0, 3, y.shape) for _ in range(2)])
    w = multiplicities(200, draws=100)
    rows = {
        name: measure_detection(s, s > 0.5, y, list("abc"), w, classes=rng.integers(0, 2, 200))
        for name, s in (("good", good), ("poor", poor))
    }
    row = rows["good"].row
    assert row["macro_auroc"] == pytest.approx(np.mean(row["fits"]), abs=1e-6)
    assert row["macro_auroc"] == pytest.approx(
        np.mean([macro_auroc(s, y, w[:1])[0] for s in good]), abs=1e-6
    )
    assert row["macro_auroc_ci"][0] < row["macro_auroc"] < row["macro_auroc_ci"][1]
    gap = compare_detections(rows["good"], {"poor": rows["poor"]})["macro_auroc"]["poor"]
    assert gap["ci"][0] > 0
    assert gap["p"] == gap["p_holm"] < 0.05
    json.dumps(row, allow_nan=False)


def test_no_lesion_and_no_feature_have_an_answer() -> None:
    w = multiplicities(0, draws=10)
    empty = measure_detection(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2)), ["a", "b"], w)
    assert empty.row["macro_auroc"] is None
    none = measure_detection(
        np.zeros((5, 0)), np.zeros((5, 0)), np.zeros((5, 0)), [], multiplicities(5)
    )
    assert none.row["micro_ppv"] is None
    json.dumps([empty.row, none.row], allow_nan=False)


def test_multiple_correlation_is_high_where_the_feature_is_there_and_nil_where_not() -> None:
    rng = np.random.default_rng(4)
    h = rng.normal(size=(300, 40))
    w = multiplicities(300, draws=50)
    y = (h @ rng.normal(size=40) > 0).astype(float)
    patients = [f"p{i // 2}" for i in range(300)]
    assert multiple_correlation(h, y, patients, w)[0] > 0.6
    noise = multiple_correlation(h, rng.permutation(y), patients, w)
    low, high = figure(noise)["ci"]
    assert low < 0.15
    assert high < 0.35
    y[:20] = np.nan
    held = out_of_fold(h, y, patients)
    assert np.isnan(held[:20]).all()
    assert np.isfinite(held[20:]).all()
    order = rng.permutation(300)
    again = out_of_fold(h[order], y[order], [patients[i] for i in order])
    np.testing.assert_allclose(again[20:], held[order][20:], atol=1e-8)


def test_a_lesion_of_the_same_patient_never_helps_a_prediction() -> None:
    """Two lesions of a patient are copies: were they split between folds, R would be 1."""
    rng = np.random.default_rng(5)
    h = np.repeat(rng.normal(size=(60, 300)), 2, axis=0)
    y = np.repeat((rng.random(60) < 0.5).astype(float), 2)
    w = multiplicities(120, draws=5)
    assert multiple_correlation(h, y, [i // 2 for i in range(120)], w)[0] < 0.4
    assert multiple_correlation(h, y, list(range(120)), w)[0] > 0.8


def test_signs_agree_only_where_something_is_said() -> None:
    w = np.ones((1, 4), dtype=np.float32)
    x, y = np.array([1.0, -2.0, 0.0, 3.0]), np.array([2.0, 1.0, 1.0, 0.0])
    assert agreement_drawn(x, y, w)[0] == pytest.approx(1 / 3)
    assert np.isnan(agreement_drawn(x, y, w, least=5)[0])


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_is_between_the_raw_value_and_bonferronis(p: list[float | None]) -> None:
    adjusted = holm(p)
    m = sum(v is not None for v in p)
    for raw, new in zip(p, adjusted, strict=True):
        if raw is None or new is None:
            assert raw is new is None
        else:
            assert raw - 1e-6 <= new <= min(1.0, raw * m) + 1e-6


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [0.03, None, 0.06, 0.06]
    assert corrected({"a": {"p": 0.02}, "b": {"p": 0.5}})["a"] == {"p": 0.02, "p_holm": 0.04}


def test_risk_falls_with_the_lesions_that_are_left_out() -> None:
    trust, right = np.arange(20.0), np.arange(20) >= 4
    curve = risk_coverage(trust, right)
    assert curve["risk"][-1] == pytest.approx(0.2)
    assert curve["risk"][15] == 0.0  # at 80 % coverage every mistake is left out
    assert error_auroc(trust, right, multiplicities(20, draws=3))[0] == 1.0
    blind = risk_coverage(np.zeros(20), right)
    assert set(blind["risk"]) == {0.2}
    flag = caught(trust < 4.5, right)
    assert flag == {
        "flagged": 0.25, "mistakes_caught": 1.0, "risk_left": 0.0, "n": 20, "n_wrong": 4,
    }  # fmt: skip
    json.dumps([risk_coverage(np.zeros(0), np.zeros(0)), caught(trust < 99, right)])
