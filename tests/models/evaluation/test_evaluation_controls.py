"""The controls: knowing the class alone, thresholds, AUROC within a class."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.controls import best_f1_thresholds, class_only, within_class_auroc


def test_class_only_is_the_class_frequency_where_the_class_is_certain() -> None:
    classes = np.repeat([0, 1], 8)
    labels = np.r_[np.ones(8), np.zeros(8)][:, None]
    given = class_only(np.eye(2), classes, labels)
    np.testing.assert_allclose(given[:, 0], [9 / 10, 1 / 10])


def test_class_only_counts_a_feature_that_was_not_assessed_for_nothing() -> None:
    labels = np.array([[1.0], [np.nan], [np.nan]])
    given = class_only(np.array([[1.0]]), np.zeros(3, dtype=int), labels)
    assert given[0, 0] == pytest.approx(2 / 3)


def test_threshold_separates_what_can_be_separated_and_ignores_the_unknown() -> None:
    scores = np.array([[0.1], [0.2], [0.8], [0.9], [0.99]])
    labels = np.array([[0.0], [0.0], [1.0], [1.0], [np.nan]])
    assert best_f1_thresholds(scores, labels)[0] == 0.8
    assert np.isinf(best_f1_thresholds(scores, labels * 0)[0])


def test_within_class_a_class_predictor_is_blind_and_a_feature_detector_is_not() -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 600)
    labels = (rng.random(600) < np.array([0.2, 0.5, 0.8])[classes]).astype(float)[:, None]
    assert within_class_auroc(classes[:, None].astype(float), labels, classes) == 0.5
    assert within_class_auroc(labels, labels, classes) == 1.0
    undefined = within_class_auroc(labels, np.ones((600, 1)), classes)
    assert np.isnan(undefined)
