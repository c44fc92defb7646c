"""Does a probe see the feature, or only the class? Controls that need no activations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def class_only(
    probabilities: NDArray[np.float64],
    train_classes: NDArray[np.int64],
    train_labels: NDArray[np.float64],
) -> NDArray[np.float64]:
    """P(feature) from the class posterior alone: sum over c of P(f | c) P(c | x). [n, F]

    probabilities: [n, C]. train_classes: [m]. train_labels: [m, F], NaN not assessed. P(f | c)
    comes from training labels with one imagined lesion of each status.
    """
    n_classes = probabilities.shape[1]
    given = np.empty((n_classes, train_labels.shape[1]))
    for c in range(n_classes):
        rows = train_labels[train_classes == c]
        given[c] = (np.nansum(rows, axis=0) + 1) / (np.isfinite(rows).sum(axis=0) + 2)
    return probabilities @ given


def best_f1_thresholds(
    scores: NDArray[np.float64], labels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The threshold a feature with the best F1 on these (never test) lesions, [F]; inf if none."""
    thresholds = np.full(scores.shape[1], np.inf)
    for f in range(scores.shape[1]):
        known = np.isfinite(labels[:, f])
        s, y = scores[known, f], labels[known, f] == 1
        if not y.any():
            continue
        cuts = np.unique(s)
        called = s[None, :] >= cuts[:, None]
        hits = (called & y).sum(axis=1)
        thresholds[f] = cuts[np.argmax(2 * hits / (called.sum(axis=1) + y.sum()))]
    return thresholds
