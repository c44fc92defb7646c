"""All figures of a bundle on a test split, beside the class-only control."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.classification import number
from models.evaluation.controls import best_f1_thresholds, class_only, within_class_auroc
from models.evaluation.detection import evaluate_features
from models.evaluation.ranking import auroc
from models.trial.readings import Readings


def measure_features(
    features: list[str],
    training: tuple[NDArray[np.int64], NDArray[np.float64]],
    validation: Readings,
    test: Readings,
    seed: int,
) -> dict[str, Any]:
    """The probes, the class-only control and how confidence tells mistakes, as JSON values.

    training: class index [m] and feature labels [m, F] of the lesions that the control may use.
    Its thresholds come from validation. Returns 'probes' and 'errors'.
    """

    def control(readings: Readings) -> NDArray[np.float64]:
        return class_only(readings.probabilities, *training)

    thresholds = best_f1_thresholds(control(validation), validation.labels)
    guess = control(test)
    right = test.probabilities.argmax(axis=1) == test.classes
    return {
        "probes": {
            "default": _detection(test, test.features, test.found, features, seed),
            "class_only": _detection(test, guess, guess >= thresholds, features, seed),
        },
        "errors": {
            "max_softmax_auroc": number(auroc(test.probabilities.max(axis=1), right)),
            "n_wrong": int((~right).sum()),
        },
    }


def _detection(
    test: Readings,
    scores: NDArray[np.float64],
    found: NDArray[np.bool_],
    features: list[str],
    seed: int,
) -> dict[str, Any]:
    row = evaluate_features(scores, found, test.labels, features, split="test", seed=seed)
    row["within_class_auroc"] = number(within_class_auroc(scores, test.labels, test.classes))
    return row
