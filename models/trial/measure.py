"""All figures of a bundle on a cohort's test split, beside the class-only control."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.cohort.format import Cohort
from models.evaluation.classification import evaluate_classifier, number
from models.evaluation.controls import best_f1_thresholds, class_only, within_class_auroc
from models.evaluation.detection import evaluate_features
from models.evaluation.ranking import auroc
from models.trial.readings import Readings, feature_labels


def measure(
    cohort: Cohort, bundle: Bundle, validation: Readings, test: Readings, seed: int
) -> dict[str, Any]:
    """All figures of the report, as JSON values."""
    features, manifest = bundle.probes.features, bundle.manifest
    training = cohort.lesions("training")
    train_classes = np.array([manifest.classes.index(le.class_id) for le in training])
    train_labels = feature_labels(training, features)

    def control(readings: Readings) -> NDArray[np.float64]:
        return class_only(readings.probabilities, train_classes, train_labels)

    thresholds = best_f1_thresholds(control(validation), validation.labels)
    guess = control(test)
    right = test.probabilities.argmax(axis=1) == test.classes
    classifier = evaluate_classifier(
        test.probabilities, test.classes, manifest.classes, split="test", seed=seed
    )
    return {
        "synthetic": cohort.file.synthetic,
        "cohort": cohort.file.name,
        "bundle": manifest.hash,
        "classifier": {
            "default": classifier | {"n_train": len(training), "n_test": len(test.classes)}
        },
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
