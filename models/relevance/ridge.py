"""Ridge regression in its dual form, with leave-one-out residuals in closed form.

Rows are few (pairs of one feature) and columns many (units of every tap), so everything happens in
the space of rows: K = X X', Saunders, Gammerman & Vovk 1998. The intercept is not penalised. The
residual of a row by the fit to all others is r_i / (1 - H_ii), exactly (Craven & Wahba 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PENALTIES = tuple(float(v) for v in 10.0 ** np.arange(-2.0, 1.1, 0.5))


@dataclass(frozen=True)
class Ridge:
    """One regression Y [n, T] on X [n, D], ready for any penalty; X is taken off its mean here.

    A penalty is relative to the mean squared length of the centred rows.
    """

    values: Array  # eigenvalues of the centred K over that length, [n]
    vectors: Array  # [n, n]
    length: float
    mean: Array  # of X, [D]
    target_mean: Array  # of Y, [T]
    residual: Array  # Y less its mean, [n, T]

    @classmethod
    def of(cls, x: Array, y: Array) -> Ridge:
        """Raises ValueError where there is no row, or X and Y differ in their number."""
        if len(x) == 0 or len(x) != len(y):
            raise ValueError("ridge: rows of X and Y")
        mean, target = x.mean(axis=0), y.mean(axis=0)
        gram = (x - mean) @ (x - mean).T
        length = float(np.trace(gram)) / len(x) or 1.0
        values, vectors = np.linalg.eigh(gram / length)
        return cls(np.maximum(values, 0.0), vectors, length, mean, target, y - target)

    def coefficients(self, penalty: float) -> Array:
        """A [n, T] such that the prediction is target_mean + (x - mean) @ (X - mean).T @ A."""
        seen = self.vectors.T @ self.residual
        return self.vectors @ (seen / (self.values + penalty)[:, None]) / self.length

    def left_out(self, penalty: float) -> Array:
        """Y less its prediction by the fit to all other rows [n, T]; for one row, the mean."""
        n = len(self.residual)
        if n == 1:
            return self.residual.copy()
        kept = self.values / (self.values + penalty)
        fitted = self.vectors @ (kept[:, None] * (self.vectors.T @ self.residual))
        leverage = 1.0 / n + np.einsum("ij,j,ij->i", self.vectors, kept, self.vectors)
        return (self.residual - fitted) / np.maximum(1.0 - leverage, 1e-6)[:, None]


def choose(ridges: Sequence[Ridge], penalties: Sequence[float] = PENALTIES) -> float:
    """The one penalty with the least leave-one-out error over all regressions.

    Each regression's error is taken relative to that of its mean alone, weighted by its rows; one
    shared choice is steadier than a choice from twenty rows. The largest penalty for no regression.
    """
    sums = []
    for penalty in penalties:
        total = 0.0
        for ridge in ridges:
            n = len(ridge.residual)
            alone = float((ridge.residual**2).sum()) * (n / (n - 1)) ** 2 if n > 1 else 0.0
            if alone > 0:
                total += n * float((ridge.left_out(penalty) ** 2).sum()) / alone
        sums.append(total)
    best = min(sums)
    # The strongest of equals.
    return max(p for p, s in zip(penalties, sums, strict=True) if s <= best * (1 + 1e-9))
