"""L2 logistic regression with nested cross-validation over lesions, in numpy.

Minimises  sum_i log(1 + exp(-y_i s_i)) + |w|^2 / (2 C)  with a free intercept (scikit-learn's
convention). The optimum lies in the span of the labelled lesions, so the fit runs in at most n
dimensions, exactly. C comes from a grid relative to the number of units:

    for the probe itself    C by approximate leave-one-out log-loss (one Newton step, Rad and Maleki
                            2020, doi 10.1111/rssb.12374) over all labelled lesions;
    for a held-out score    C by the same rule on the four fifths of lesions that hold neither the
                            lesion nor its fold, then an exact fit to all lesions but this one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.probes.linear import LinearFit, TrainingSet

GRID = tuple(float(c) for c in 10.0 ** np.arange(-2.5, 1.6, 0.5))  # C times the number of units
DEFAULT = 10.0**-0.5  # where there are too few lesions to choose
FOLDS = 5

Array = NDArray[np.float64]


def fit_logistic(data: TrainingSet) -> LinearFit:
    """One regression a feature. A feature with one class of labels only gets zero weights."""
    fit = LinearFit.empty(data)
    units = max(data.z.shape[1], 1)
    for f in range(data.labels.shape[1]):
        rows = np.flatnonzero(np.isfinite(data.labels[:, f]))
        y = data.labels[rows, f]
        if len(np.unique(y)) < 2:
            continue
        z = data.z[rows]
        u, s, vt = np.linalg.svd(z, full_matrices=False)
        x = np.column_stack([u * s, np.ones(len(rows))])
        chosen = _choose(x, y, units)
        theta = newton(x, y, units / chosen)
        fit.weights[f] = theta[:-1] @ vt
        fit.bias[f] = theta[-1]
        fit.held_out[rows, f] = _held_out(x, y, units, data.seed)
    return fit


def _held_out(x: Array, y: Array, units: int, seed: int) -> Array:
    folds = _folds(y, seed)
    scores = np.full(len(y), np.nan)
    for k in range(folds.max() + 1):
        outside = folds != k
        chosen = _choose(x[outside], y[outside], units)
        scores[~outside] = leave_one_out(x, y, units / chosen)[~outside]
    return scores


def _folds(y: Array, seed: int) -> NDArray[np.int64]:
    """Stratified folds: each class is dealt out in turn, in a seeded order."""
    rng = np.random.default_rng([seed, len(y)])
    folds = np.zeros(len(y), dtype=np.int64)
    for label in (0.0, 1.0):
        rows = rng.permutation(np.flatnonzero(y == label))
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def _choose(x: Array, y: Array, units: int) -> float:
    """The C (times units) with the smallest approximate leave-one-out log-loss."""
    if min((y == 0).sum(), (y == 1).sum()) < 3:
        return DEFAULT
    losses, theta = [], None
    for c in GRID:
        theta = newton(x, y, units / c, theta)
        approximate, _, _, _ = _one_step(x, y, units / c, theta)
        losses.append(np.logaddexp(0.0, -(2 * y - 1) * approximate).mean())
    return GRID[int(np.argmin(losses))]


def newton(x: Array, y: Array, penalty: float, start: Array | None = None) -> Array:
    """Coefficients [r + 1], intercept last; x: [n, r + 1] with a column of ones at the end.

    Damped Newton steps: a step that does not lower the loss is halved.
    """
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 0.0
    theta = np.zeros(x.shape[1]) if start is None else start.copy()
    loss = _loss(x, y, ridge, theta)
    for _ in range(100):
        p = _sigmoid(x @ theta)
        gradient = x.T @ (p - y) + ridge * theta
        # A hair on the diagonal keeps the intercept solvable when all weights p(1-p) vanish.
        hessian = (x.T * (p * (1 - p))) @ x + np.diag(ridge + 1e-10)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6 and _loss(x, y, ridge, theta - size * step) > loss + 1e-12 * abs(loss):
            size /= 2
        theta = theta - size * step
        loss = _loss(x, y, ridge, theta)
        if np.abs(x @ step).max() * size < 1e-9:
            break
    return theta


def _one_step(
    x: Array, y: Array, penalty: float, theta: Array
) -> tuple[Array, Array, Array, Array]:
    """Scores without each lesion after one Newton step; also H^-1 X', leverages, weights."""
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 0.0
    p = _sigmoid(x @ theta)
    w = p * (1 - p)
    hessian = (x.T * w) @ x + np.diag(ridge + 1e-10)
    hx = np.asarray(np.linalg.solve(hessian, x.T), dtype=np.float64)
    leverage = np.einsum("ij,ji->i", x, hx)
    room = np.maximum(1 - w * leverage, 1e-6)
    return x @ theta + (p - y) * leverage / room, hx, leverage, w


def leave_one_out(x: Array, y: Array, penalty: float) -> Array:
    """Score of every lesion by the fit to all others, [n]; NaN where only one class would be left.

    All n fits run side by side from the one-step solution, each with the full fit's Hessian less
    its lesion; the few that do not settle are fitted one by one.
    """
    theta = newton(x, y, penalty)
    _, hx, leverage, w = _one_step(x, y, penalty, theta)
    room = np.maximum(1 - w * leverage, 1e-6)
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 0.0
    n = len(y)
    thetas = np.repeat(theta[:, None], n, axis=1)
    settled = np.zeros(n, dtype=bool)
    inverse = np.linalg.inv((x.T * w) @ x + np.diag(ridge + 1e-10))
    for _ in range(40):
        errors = _sigmoid(x @ thetas) - y[:, None]
        np.fill_diagonal(errors, 0.0)
        gradient = x.T @ errors + ridge[:, None] * thetas
        step = inverse @ gradient
        step += hx * (w * np.einsum("ij,ji->i", x, step) / room)
        thetas = thetas - step
        settled = np.abs(x @ step).max(axis=0) < 1e-7
        if settled.all():
            break
    scores = np.einsum("ij,ji->i", x, thetas)
    for i in range(n):
        rest = np.arange(n) != i
        if y[rest].min() == y[rest].max():
            scores[i] = np.nan
        elif not settled[i] or not np.isfinite(scores[i]):
            scores[i] = x[i] @ newton(x[rest], y[rest], penalty, theta)
    return scores


def _loss(x: Array, y: Array, ridge: Array, theta: Array) -> float:
    s = x @ theta
    return float(np.logaddexp(0.0, s).sum() - y @ s + 0.5 * (ridge * theta) @ theta)


def _sigmoid(s: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * s))
