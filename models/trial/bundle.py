"""One bundle measured on its cohort's test split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from models.bundle.read import Bundle
from models.cohort.format import Cohort
from models.evaluation.classification import evaluate_classifier
from models.model import Model
from models.trial.measure import measure_features
from models.trial.readings import Readings, feature_labels, read_split


def measure_bundle(
    cohort: Cohort,
    bundle: Bundle,
    model: Model,
    *,
    passes: int = 8,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Classes, features and mistakes as JSON values; validation chooses the control's thresholds.

    passes: stochastic passes a lesion, for the features. progress(what, done, total).
    """
    manifest, features = bundle.manifest, bundle.probes.features

    def read(split: str) -> Readings:
        def step(done: int, total: int) -> None:
            if progress:
                progress(f"reading {split}", done, total)

        return read_split(cohort, split, bundle, model, passes=passes, seed=seed, progress=step)

    validation, test = read("validation"), read("test")
    training = cohort.lesions("training")
    classes = np.array([manifest.classes.index(entry.class_id) for entry in training])
    row = evaluate_classifier(
        test.probabilities, test.classes, manifest.classes, split="test", seed=seed
    )
    return {
        "synthetic": cohort.file.synthetic,
        "cohort": cohort.file.name,
        "bundle": manifest.hash,
        "classifier": {"default": row | {"n_train": len(training), "n_test": len(test.classes)}},
        **measure_features(
            features, (classes, feature_labels(training, features)), validation, test, seed
        ),
    }
