"""What features weigh in the verdicts of a class: the mean over lesions, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.intervals import bootstrap

FEWEST = 3  # lesions behind a mean


def class_relevance(
    change: NDArray[np.floating],
    predicted: NDArray[np.integer],
    found: NDArray[np.bool_],
    classes: Sequence[str],
    features: Sequence[str],
    *,
    draws: int = 500,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Class id -> feature id -> {'value', 'ci', 'n'}, over lesions predicted so.

    change: of the predicted class's centred logit by each feature [n, F]; NaN: not weighed.
    predicted: class index [n]. found: whether the feature was called present [n, F]; only such
    lesions count, and at least three of them, or the entry is left out. Strongest first.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for c, class_id in enumerate(classes):
        rows: list[tuple[str, dict[str, Any]]] = []
        for f, feature in enumerate(features):
            mine = change[(predicted == c) & found[:, f] & np.isfinite(change[:, f]), f]
            if len(mine) < FEWEST:
                continue
            ci = bootstrap(lambda i, v=mine: float(v[i].mean()), len(mine), draws=draws, seed=seed)  # type: ignore[misc]
            value = round(float(mine.mean()), 4)
            interval = None if ci is None else [round(v, 4) for v in ci]
            rows.append((feature, {"value": value, "ci": interval, "n": len(mine)}))
        table[class_id] = dict(sorted(rows, key=lambda row: (-abs(row[1]["value"]), row[0])))
    return table
