"""Temperature scaling and its measure (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """[..., C] -> probabilities [..., C], stable for any size of logits."""
    z = np.asarray(logits, dtype=np.float64)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_loss(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean negative log-likelihood in nats. logits: [n, C]; labels: class indices, [n]."""
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=1, keepdims=True)
    picked = z[np.arange(len(z)), np.asarray(labels, dtype=int)]
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - picked))


def fit_temperature(
    logits: NDArray[Any], labels: NDArray[Any], *, lowest: float = 0.05, highest: float = 20.0
) -> float:
    """The T > 0 that minimises the log-loss of softmax(logits / T) on held-out lesions.

    logits: [n, C]; labels: class indices, [n]. Bounded, so that a faultless validation split does
    not make the network infinitely sure. No lesions: 1.
    """
    from scipy.optimize import minimize_scalar

    z = np.asarray(logits, dtype=np.float64)
    if len(z) == 0:
        return 1.0
    found = minimize_scalar(
        lambda log_t: log_loss(z / np.exp(log_t), labels),
        bounds=(np.log(lowest), np.log(highest)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return round(float(np.exp(found.x)), 6)


def expected_calibration_error(
    probabilities: NDArray[Any], labels: NDArray[Any], bins: int = 10
) -> float:
    """ECE of the top class: mean |confidence - accuracy| over equal-width bins, weighted by size.

    probabilities: [n, C]; labels: class indices, [n]. Biased upwards on few lesions.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if len(p) == 0:
        return float("nan")
    right = p.argmax(axis=1) == np.asarray(labels)
    return binary_calibration_error(p.max(axis=1), right, bins)


def binary_calibration_error(
    probabilities: NDArray[Any], labels: NDArray[Any], bins: int = 10
) -> float:
    """ECE of one event: mean |probability - frequency| over equal-width bins. Both [n]."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if len(p) == 0:
        return float("nan")
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(p[which == b].sum() - y[which == b].sum()) for b in range(bins)]
    return float(np.sum(gaps) / len(p))
