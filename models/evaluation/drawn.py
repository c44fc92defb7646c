"""Detection figures of all bootstrap draws at once; see `resampling` for w [B, n].

scores: [n] or [n, F]; labels: 1 present, 0 absent, NaN not assessed (which counts for nothing).
Every function returns [B], NaN in draws where the figure is undefined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.resampling import Drawn, Weights


def auroc_drawn(scores: NDArray[Any], labels: NDArray[Any], w: Weights) -> Drawn:
    """Probability that a positive outranks a negative, ties counting half."""
    wins, pairs = _outranked(*_known(scores, labels, w))
    return _ratio(wins, pairs)


def ap_drawn(scores: NDArray[Any], labels: NDArray[Any], w: Weights) -> Drawn:
    """Average precision: the sum over thresholds of (gain in recall) x precision.

    As scikit-learn's average_precision_score: no interpolation, equal scores are one threshold.
    """
    s, y, weights = _known(scores, labels, w)
    order = np.argsort(-s, kind="stable")
    s, y, weights = s[order], y[order], weights[:, order]
    if len(s) == 0:
        return np.full(len(w), np.nan)
    ends = np.flatnonzero(np.r_[s[1:] != s[:-1], True])
    called = np.cumsum(weights, axis=1, dtype=np.float64)[:, ends]
    hits = np.cumsum(weights * y, axis=1, dtype=np.float64)[:, ends]
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    gains = np.diff(hits, axis=1, prepend=0.0)
    return _ratio((gains * precision).sum(axis=1), hits[:, -1])


def per_feature(
    statistic: Any, scores: NDArray[Any], labels: NDArray[Any], w: Weights
) -> NDArray[np.float64]:
    """auroc_drawn or ap_drawn of every feature, [B, F]."""
    columns = [statistic(scores[:, f], labels[:, f], w) for f in range(labels.shape[1])]
    return np.stack(columns, axis=1) if columns else np.zeros((len(w), 0))


def macro(values: NDArray[np.float64]) -> Drawn:
    """Mean over the features for which a figure is defined: [B, F] -> [B]."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def macro_auroc(scores: NDArray[Any], labels: NDArray[Any], w: Weights) -> Drawn:
    """AUROC, the mean over features."""
    return macro(per_feature(auroc_drawn, scores, labels, w))


def macro_ap(scores: NDArray[Any], labels: NDArray[Any], w: Weights) -> Drawn:
    """Average precision, the mean over features."""
    return macro(per_feature(ap_drawn, scores, labels, w))


def within_class_features(
    scores: NDArray[Any], labels: NDArray[Any], classes: NDArray[Any], w: Weights
) -> NDArray[np.float64]:
    """AUROC inside one true class, [B, F]: over classes weighted by pairs.

    Only lesions of one class are compared with one another, so a score that says no more than the
    class has 0.5.
    """
    out = np.full((len(w), labels.shape[1]), np.nan)
    for f in range(labels.shape[1]):
        wins, pairs = np.zeros(len(w)), np.zeros(len(w))
        for c in np.unique(classes):
            rows = np.flatnonzero(np.asarray(classes) == c)
            more = _outranked(*_known(scores[rows, f], labels[rows, f], w[:, rows]))
            wins, pairs = wins + more[0], pairs + more[1]
        out[:, f] = _ratio(wins, pairs)
    return out


def within_class(
    scores: NDArray[Any], labels: NDArray[Any], classes: NDArray[Any], w: Weights
) -> Drawn:
    """`within_class_features`, the mean over features."""
    return macro(within_class_features(scores, labels, classes, w))


def micro_ppv(found: NDArray[Any], labels: NDArray[Any], w: Weights) -> Drawn:
    """Of all features called present (and assessed), the share that is: [n, F] -> [B]."""
    called, y = np.asarray(found, dtype=bool), np.asarray(labels)
    right = w @ (called & (y == 1)).sum(axis=1)
    return _ratio(right, w @ (called & np.isfinite(y)).sum(axis=1))


def micro_sensitivity(found: NDArray[Any], labels: NDArray[Any], w: Weights) -> Drawn:
    """Of all features that are present, the share called so: [n, F] -> [B]."""
    called, y = np.asarray(found, dtype=bool), np.asarray(labels)
    return _ratio(w @ (called & (y == 1)).sum(axis=1), w @ (y == 1).sum(axis=1))


def mean_drawn(values: NDArray[Any], w: Weights) -> Drawn:
    """Mean of a number a lesion, NaN left out: accuracy, pointing hits, sign agreement."""
    v = np.asarray(values, dtype=np.float64)
    known = np.isfinite(v)
    return _ratio(w[:, known] @ v[known], w[:, known].sum(axis=1))


def _known(
    scores: NDArray[Any], labels: NDArray[Any], w: Weights
) -> tuple[NDArray[np.float64], NDArray[np.bool_], Weights]:
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    known = np.isfinite(y)
    if known.all():
        return s, y == 1, w
    return s[known], y[known] == 1, w[:, known]


def _outranked(
    s: NDArray[np.float64], y: NDArray[np.bool_], w: Weights
) -> tuple[Drawn, NDArray[np.float64]]:
    """Pairs (positive, negative) that the positive wins, ties half; and all such pairs: [B]."""
    order = np.argsort(s[~y], kind="stable")
    negatives = s[~y][order]
    heap = np.zeros((len(w), len(negatives) + 1), dtype=np.float64)
    np.cumsum(w[:, ~y][:, order], axis=1, out=heap[:, 1:])
    positive = w[:, y].astype(np.float64)
    left = np.searchsorted(negatives, s[y], "left")
    right = np.searchsorted(negatives, s[y], "right")
    beaten = heap[:, left]
    beaten = (beaten + heap[:, right]) / 2 if (left != right).any() else beaten
    return (positive * beaten).sum(axis=1), positive.sum(axis=1) * heap[:, -1]


def _ratio(over: NDArray[Any], under: NDArray[Any]) -> Drawn:
    a, b = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
