"""AUROC, with ties, and its interval by bootstrap over lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.intervals import bootstrap


def auroc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Probability that a positive outranks a negative, ties counting half. Both [n]; labels 0/1.

    NaN where one of the two groups is empty.
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    positives, negatives = s[y], np.sort(s[~y])
    if len(positives) == 0 or len(negatives) == 0:
        return float("nan")
    below = np.searchsorted(negatives, positives, "left").sum()
    not_above = np.searchsorted(negatives, positives, "right").sum()
    return float(below + not_above) / (2 * len(positives) * len(negatives))


def auroc_interval(
    scores: NDArray[Any], labels: NDArray[Any], *, draws: int = 500, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval by bootstrap over lesions; None where a group is empty."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    if y.all() or not y.any():
        return None
    return bootstrap(lambda i: auroc(s[i], y[i]), len(s), draws=draws, seed=seed)
