"""From held-out scores to probabilities that ten labels can carry, and to an operating point.

Platt scaling (Platt 1999) on leave-one-lesion-out scores, with his prior: the targets are
(n1 + 1) / (n1 + 2) and 1 / (n0 + 2), not 1 and 0. No probability leaves that range either, however
far a lesion's score lies beyond those seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NEVER = 1.0  # a threshold that no probability reaches
LEAST_PPV = 0.5  # expected, of what is found
FALSE_FINDS = 0.05  # budget: chance that a feature which the probe can't see may ever be found


@dataclass(frozen=True)
class Calibration:
    """probability = clip(sigmoid(slope * score + intercept), low, high); found: >= threshold.

    log_loss: of the held-out lesions, in nats; NaN where nothing could be held out.
    """

    slope: float
    intercept: float
    low: float
    high: float
    threshold: float
    log_loss: float

    def probability(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return squash(scores, self.slope, self.intercept, self.low, self.high)


def squash(
    scores: NDArray[np.float64],
    slope: NDArray[np.float64] | float,
    intercept: NDArray[np.float64] | float,
    low: NDArray[np.float64] | float,
    high: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Calibrated probabilities; the parameters broadcast over `scores`."""
    return np.clip(0.5 * (1 + np.tanh(0.5 * (slope * scores + intercept))), low, high)


def prior(labels: NDArray[np.float64]) -> float:
    """Laplace's rule over the assessed lesions: (n1 + 1) / (n + 2)."""
    known = labels[np.isfinite(labels)]
    return float((known.sum() + 1) / (len(known) + 2))


def calibrate(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> Calibration:
    """Fit to held-out scores [n]; NaN scores or labels are left out.

    With fewer than two lesions of either kind, or scores that rank them no better than chance, the
    probability is the prior and the feature is never found. Nor is it where the held-out scores of
    present lesions are not above those of absent ones by a one-sided rank test at FALSE_FINDS.
    """
    known = np.isfinite(scores) & np.isfinite(labels)
    s, y = scores[known], labels[known] == 1
    n1, n0 = int(y.sum()), int((~y).sum())
    if min(n1, n0) < 2:
        return _constant(prior(labels), float("nan"))
    high, low = (n1 + 1) / (n1 + 2), 1 / (n0 + 2)
    target = np.where(y, high, low)
    slope, intercept = _platt(s, target)
    if slope <= 0:
        p = prior(labels)
        return _constant(p, _loss(np.full(len(y), p), y))
    found = squash(s, slope, intercept, low, high)
    threshold = operating_point(found) if above_chance(s, y) else NEVER
    return Calibration(slope, intercept, low, high, threshold, _loss(found, y))


def above_chance(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> bool:
    """Mann and Whitney's test, one-sided at FALSE_FINDS, normal approximation with ties."""
    n1, n0 = int(present.sum()), int((~present).sum())
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    wins = float(ranks[present].sum()) - n1 * (n1 + 1) / 2
    n = n1 + n0
    ties = float((counts**3 - counts).sum()) / (n * (n - 1))
    deviation = np.sqrt(n1 * n0 / 12 * (n + 1 - ties))
    return bool(wins - n1 * n0 / 2 - 0.5 > NormalDist().inv_cdf(1 - FALSE_FINDS) * deviation)


def operating_point(probabilities: NDArray[np.float64]) -> float:
    """The threshold with the highest expected F1 of held-out lesions, halfway between two of them.

    Expected under the calibrated probabilities themselves rather than counted on ten labels, where
    one lesion more or less would move it: F1(t) = 2 sum_{p >= t} p / (#{p >= t} + sum p). F1 alone
    would find a feature that the probe cannot see on every lesion, so the expected PPV must be at
    least one half: 'found' is right more often than wrong, or the feature is never found.
    """
    p = np.sort(probabilities)[::-1]
    hits, called = np.cumsum(p), np.arange(1, len(p) + 1)
    f1 = 2 * hits / (called + p.sum())
    last = np.append(p[:-1] > p[1:], True)  # between equal probabilities there is no threshold
    allowed = last & (hits >= LEAST_PPV * called)
    if not allowed.any():
        return NEVER
    best = int(np.argmax(np.where(allowed, f1, -1.0)))
    below = p[best + 1] if best + 1 < len(p) else 0.0
    return float((p[best] + below) / 2)


def _loss(p: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    return -float(np.mean(np.where(y, np.log(p), np.log1p(-p))))


def _constant(probability: float, loss: float) -> Calibration:
    intercept = float(np.log(probability / (1 - probability)))
    return Calibration(0.0, intercept, probability, probability, NEVER, loss)


def _platt(s: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept that minimise the cross-entropy, by damped Newton steps."""
    middle, width = float(s.mean()), float(s.std())
    if width == 0:
        return 0.0, 0.0
    x = np.column_stack([(s - middle) / width, np.ones(len(s))])

    def loss(theta: NDArray[np.float64]) -> float:
        f = x @ theta
        return float((np.logaddexp(0.0, f) - target * f).sum())

    theta = np.zeros(2)
    for _ in range(100):
        p = 0.5 * (1 + np.tanh(0.5 * (x @ theta)))
        hessian = (x.T * (p * (1 - p))) @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (p - target))
        size, now = 1.0, loss(theta)
        while size > 1e-6 and loss(theta - size * step) > now:
            size /= 2
        theta = theta - size * step
        if np.abs(step).max() * size < 1e-10:
            break
    slope = float(theta[0] / width)
    return slope, float(theta[1] - slope * middle)
