"""Covariance from fewer lesions than units: Ledoit and Wolf's shrinkage towards a scaled identity.

Ledoit, Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices"
(doi 10.1016/S0047-259X(03)00096-4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shrinkage:
    """covariance = (1 - intensity) * sample + intensity * variance * identity."""

    intensity: float
    variance: float

    @property
    def ridge(self) -> float:
        """What is added to the diagonal; never zero, so that the inverse exists."""
        return max(self.intensity * self.variance, 1e-6 * max(self.variance, 1e-12))


def ledoit_wolf(residuals: NDArray[Any]) -> Shrinkage:
    """The optimal intensity for `residuals` [n, D], centred on their mean or class means."""
    x = np.asarray(residuals, dtype=np.float64)
    n, d = x.shape
    if n < 2 or d == 0:
        return Shrinkage(1.0, 1.0)
    # |X'X|_F = |XX'|_F: take the smaller of the two.
    gram = (x @ x.T if n < d else x.T @ x) / n
    variance = float((x**2).sum()) / (n * d)
    sample = float((gram**2).sum()) / d
    distance = sample - variance**2
    error = float(((x**2).sum(axis=1) ** 2).sum()) / (n * n * d) - sample / n
    if distance <= 0:
        return Shrinkage(1.0, variance)
    return Shrinkage(float(np.clip(error / distance, 0.0, 1.0)), variance)


def covariance(residuals: NDArray[Any], shrinkage: Shrinkage | None = None) -> NDArray[np.float64]:
    """Shrunk covariance [D, D] of centred `residuals` [n, D]."""
    x = np.asarray(residuals, dtype=np.float64)
    shrinkage = shrinkage or ledoit_wolf(x)
    scatter = x.T @ x / max(len(x), 1)
    return (1 - shrinkage.intensity) * scatter + shrinkage.ridge * np.eye(x.shape[1])
