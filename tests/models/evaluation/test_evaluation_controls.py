"""The controls: knowing the class alone, and thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.controls import best_f1_thresholds, class_only


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
