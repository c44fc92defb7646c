"""All figures of a bundle on a test split, beside the class-only control."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.classification import number
from models.evaluation.controls import best_f1_thresholds, class_only
from models.evaluation.detection import compare_detections, measure_detection
from models.evaluation.ranking import auroc
from models.evaluation.resampling import multiplicities
from models.trial.readings import Readings


def measure_features(
    features: list[str],
    training: tuple[NDArray[np.int64], NDArray[np.float64]],
    validation: Readings,
    test: Readings,
    seed: int,
    *,
    draws: int = 1000,
) -> dict[str, Any]:
    """The probes, the class-only control and how confidence tells mistakes, as JSON values.

    training: class index [m] and feature labels [m, F] of the lesions that the control may use.
    Its thresholds come from validation. Returns 'probes', 'comparisons' and 'errors'.
    """

    def control(readings: Readings) -> NDArray[np.float64]:
        return class_only(readings.probabilities, *training)

    thresholds = best_f1_thresholds(control(validation), validation.labels)
    guess = control(test)
    right = test.probabilities.argmax(axis=1) == test.classes
    w = multiplicities(len(test.classes), draws=draws, seed=seed)
    rows = {
        name: measure_detection(scores, found, test.labels, features, w, classes=test.classes)
        for name, scores, found in (
            ("default", test.features, test.found),
            ("class_only", guess, guess >= thresholds),
        )
    }
    return {
        "probes": {name: done.row for name, done in rows.items()},
        "comparisons": compare_detections(rows["default"], {"class_only": rows["class_only"]}),
        "errors": {
            "max_softmax_auroc": number(auroc(test.probabilities.max(axis=1), right)),
            "n_wrong": int((~right).sum()),
        },
    }
