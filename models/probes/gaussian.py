"""Density ratio s_f(h) = log p(h | f) - log p(h), one shrunk Gaussian each.

p(h) is the unlabelled reference, p(h | f) the lesions labelled present. Both share one covariance,
pooled within the two samples and shrunk after Ledoit and Wolf: ten lesions cannot carry a
covariance of their own (the quadratic term of an unseen lesion drowns the ratio in hundreds of
nats), and with a shared one the ratio is linear in h,

    s_f(h) = (mu_f - mu)' S^-1 (h - (mu_f + mu) / 2)        in nats.

Leave-one-lesion-out is exact and in closed form: without a lesion both means move, and the scatter
loses one rank for its place among the present and one for its place in the reference (Woodbury).
Only the intensity of shrinkage, which needs no label, is taken from the whole reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.probes.linear import LinearFit, TrainingSet
from models.probes.shrinkage import Shrinkage, ledoit_wolf


@dataclass(frozen=True)
class _Reference:
    """The marginal: mean [d], scatter [d, d] (not divided by m), shrinkage."""

    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]
    count: int
    shrinkage: Shrinkage


def fit_gaussian(data: TrainingSet) -> LinearFit:
    """One ratio a feature. A feature with no present lesion gets zero weights."""
    fit = LinearFit.empty(data)
    if len(data.reference) == 0:
        return fit
    mean = data.reference.mean(axis=0)
    centred = data.reference - mean
    marginal = _Reference(mean, centred.T @ centred, len(centred), ledoit_wolf(centred))
    for f in range(data.labels.shape[1]):
        if (data.labels[:, f] == 1).any():
            _fit_one(data, f, marginal, fit)
    return fit


def _fit_one(data: TrainingSet, f: int, marginal: _Reference, fit: LinearFit) -> None:
    y = data.labels[:, f]
    present = data.z[y == 1]
    n, m = len(present), marginal.count
    mean = present.mean(axis=0)
    spread = present - mean
    values, basis = np.linalg.eigh(marginal.scatter + spread.T @ spread)
    values = np.maximum(values, 0.0)
    keep, ridge = 1 - marginal.shrinkage.intensity, marginal.shrinkage.ridge

    # In the eigenbasis the shrunk covariance is diagonal whatever its scale.
    mu_f, mu = mean @ basis, marginal.mean @ basis
    weights = (mu_f - mu) / (keep / (n + m) * values + ridge)
    fit.weights[f] = basis @ weights
    fit.bias[f] = -0.5 * float((mu_f + mu) @ weights)

    z = data.z @ basis
    for i in np.flatnonzero(np.isfinite(y)):
        left, rest, lost = n, m, []
        mu_f_i, mu_i = mu_f, mu
        if y[i] == 1:
            left -= 1
            if left == 0:
                continue
            gap = z[i] - mu_f
            mu_f_i = mu_f - gap / left
            lost.append(gap * np.sqrt(n / left))
        if data.twin[i] >= 0 and m > 2:
            rest -= 1
            gap = z[i] - mu
            mu_i = mu - gap / rest
            lost.append(gap * np.sqrt(m / rest))
        scale = keep / (left + rest)
        w = _solve(scale * values + ridge, lost, scale, mu_f_i - mu_i)
        fit.held_out[i, f] = float((z[i] - 0.5 * (mu_f_i + mu_i)) @ w)


def _solve(
    diagonal: NDArray[np.float64],
    lost: list[NDArray[np.float64]],
    scale: float,
    right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(diag - scale * sum of lost lost')^-1 right."""
    if not lost:
        return right / diagonal
    u = np.stack(lost, axis=1) * np.sqrt(scale)
    du = u / diagonal[:, None]
    inner = np.eye(u.shape[1]) - u.T @ du
    return right / diagonal + du @ np.linalg.solve(inner, du.T @ right)
