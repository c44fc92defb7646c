"""Kernel density ratio with local bandwidths: the rodeo, done so that its numbers hold.

    s_f(x) = log mean over lesions with f of K_h(x, X) - log mean over those without of K_h(x, X)

h is chosen for each x by the rodeo of Liu, Lafferty and Wasserman ("Sparse nonparametric density
estimation in high dimensions using the rodeo", AISTATS 2007; regression: Lafferty and Wasserman,
Ann. Statist. 36:28, 2008): all bandwidths start wide, and h_j shrinks by a factor as long as the
derivative of the density with respect to it stands out of its own standard error,

    |mean_i Z_ji| > sqrt(2 log(n log d)) std_i(Z_ji) / sqrt(n),   Z_ji = (u_ji^2 - 1) K_i,

u_ji = (x_j - X_ij) / h_j. What is different from the published use of it (`published.rodeo`):

- the kernel weights K follow the bandwidths, and the test has the standard error, not the spread;
- everything is a logarithm, and weights are relative to the nearest lesion: nothing underflows;
- a lesion is one sample, its passes averaged: passes of one lesion tell little of another;
- bandwidths are those of the unlabelled reference, the same with and without the feature. Ten
  lesions can't choose 80 bandwidths, and where the two densities had different ones their ratio
  would be one of bandwidths. Shared, the normalisation cancels;
- dead units are dropped, and the others are turned to the leading axes of the reference's
  covariance (Ledoit-Wolf) and half whitened, which is what a distance with one width an axis needs.

The ratio is taken against labelled lesions without the feature; where all show it, against the
reference, which is the marginal of the published form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.probes.shrinkage import covariance

AXES = 32  # leading axes that the kernel reads
POWER = 0.5  # 0: no whitening; 1: full
SHARE = 0.004  # of the mean weight of all lesions, added to each side of the ratio
START, SHRINK, FLOOR = 3.0, 0.9, 0.1  # bandwidths, in root mean squares of an axis

Array = NDArray[np.float64]


class SparseKDE:
    """After `fit`: features_, the number of features; axes_, the number of axes read."""

    def fit(
        self, h: NDArray[Any], labels: NDArray[Any], reference: NDArray[Any] | None = None
    ) -> SparseKDE:
        """h: labelled lesions [n, D], or [n, T, D] with their passes. labels: [n, F], 1 present,
        0 absent, NaN not assessed. reference: unlabelled lesions of the same kind; none: h.
        """
        rows = _lesions(h)
        y = np.asarray(labels, dtype=np.float64)
        base = rows if reference is None else _lesions(reference)
        if y.ndim != 2 or len(y) != len(rows) or base.shape[1] != rows.shape[1] or not len(base):
            raise InputError(
                "activations, labels and reference do not fit", field="labels",
                found=f"{rows.shape}, {y.shape}, {base.shape}", expected="[n, D], [n, F], [m, D]",
            )  # fmt: skip
        self.features_ = y.shape[1]
        self._mean = base.mean(axis=0)
        self._turn = _axes(base - self._mean)
        self.axes_ = self._turn.shape[1]
        self._labelled = self._seen(rows)
        z = self._seen(base)
        self._powers = np.concatenate([z, z**2, z**3, z**4], axis=1)
        # [2, F, n]: a row's share in the mean over those with, and without, the feature.
        sides = np.stack([(y == 1).T, (y == 0).T]).astype(np.float64)
        counts = sides.sum(axis=2, keepdims=True)
        self._sides = sides / np.maximum(counts, 1)
        self._known = counts[:, :, 0] > 0
        self._prior = np.log((counts[0, :, 0] + 1) / (counts[1, :, 0] + 1))
        return self

    def decision_function(self, h: NDArray[Any]) -> Array:
        """Lesions [k, D], or [k, T, D] with their passes -> log density ratios [k, F], in nats.

        0 for a feature that no labelled lesion shows: nothing is known of it.
        """
        points = self._seen(_lesions(h))
        scores = np.zeros((len(points), self.features_))
        for row, x in zip(scores, points, strict=True):
            width = self.bandwidths(x)
            logs = _log_weights(self._labelled, x, width)
            far = _log_weights(self._powers[:, : self.axes_], x, width)
            top = max(float(logs.max()), float(far.max()))
            near, every = np.exp(logs - top), float(np.exp(far - top).mean())
            # A share of everything on both sides bounds what one neighbour can say.
            share = SHARE * (float(near.mean()) + every)
            with_it, without = self._sides @ near
            without = np.where(self._known[1], without, every)
            ratio = np.log(with_it + share) - np.log(without + share)
            row[:] = np.where(self._known[0], ratio, 0.0)
        return scores

    def predict_proba(self, h: NDArray[Any]) -> Array:
        """Probability of each feature [k, F], with its share among labelled lesions as the prior
        (one imagined lesion of each status). As likely as that share where nothing is known.
        """
        odds = np.clip(self.decision_function(h) + self._prior, -700, 700)
        return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)

    def bandwidths(self, x: Array) -> Array:
        """The rodeo at one point of the turned space, [axes_]."""
        d = self.axes_
        n = len(self._powers)
        width = np.full(d, float(START))
        active = np.ones(d, dtype=bool)
        limit = 2 * np.log(max(n * np.log(max(d, 2)), 1.0)) / n
        coordinates = self._powers[:, :d]
        while active.any():
            logs = _log_weights(coordinates, x, width)
            k = np.exp(logs - logs.max())
            squares = k * k
            m0, m1 = _moments(k, self._powers[:, : 2 * d], x)
            q0, q1, q2 = _moments(squares, self._powers, x)
            m1, q1, q2 = m1 / width**2, q1 / width**2, q2 / width**4
            gap = m1 - m0
            spread = np.maximum(q2 - 2 * q1 + q0 - gap**2, 0.0)
            active &= (gap**2 > limit * spread) & (width > FLOOR)
            width[active] *= SHRINK
        return width

    def _seen(self, rows: Array) -> Array:
        return np.asarray((rows - self._mean) @ self._turn, dtype=np.float64)


def _lesions(h: NDArray[Any]) -> Array:
    """[n, D] or [n, T, D] -> [n, D]"""
    rows = np.asarray(h, dtype=np.float64)
    return rows.mean(axis=1) if rows.ndim == 3 else rows


def _axes(centred: Array) -> Array:
    """[D, axes]: leading axes, half whitened, with root mean square 1 on average; dead units 0."""
    spread = centred.std(axis=0)
    most = float(spread.max(initial=0.0))
    live = spread > 1e-6 * most
    turn = np.zeros((centred.shape[1], max(1, min(AXES, int(live.sum())))))
    if not live.any():
        return turn
    # Of unit size first: what follows must not depend on the activations' scale.
    values, basis = np.linalg.eigh(covariance(centred[:, live] / most))
    lead = np.argsort(-values, kind="stable")[: turn.shape[1]]
    turn[live] = basis[:, lead] * values[lead] ** (-POWER / 2)
    return turn / np.sqrt(float(((centred @ turn) ** 2).mean()))


def _log_weights(rows: Array, x: Array, width: Array) -> Array:
    return np.asarray(-0.5 * (((rows - x) / width) ** 2).sum(axis=1), dtype=np.float64)


def _moments(k: Array, powers: Array, x: Array) -> list[Array]:
    """Means of k (x - X)^p for p = 0, 2 and, where powers go up to the fourth, 4; [d] each."""
    d = len(x)
    m = np.split(k @ powers / len(k), powers.shape[1] // d)
    m0 = k.mean()
    found = [np.full(d, m0), x * x * m0 - 2 * x * m[0] + m[1]]
    if len(m) == 4:
        found.append(x**4 * m0 - 4 * x**3 * m[0] + 6 * x * x * m[1] - 4 * x * m[2] + m[3])
    return found
