"""Few-shot probe: logistic regression whose prior comes from unlabelled lesions.

Ten labels a feature cannot say which of some hundred correlated units matter, but unlabelled
lesions say how units vary together. Each group of the evidence (a tap, the image measurements) is
rotated to the principal axes of the reference and *half* whitened: axis k is divided by
(lambda_k + e)^(1/4), so that with an L2 penalty the prior covariance of the weights goes with
S^(-1/2), between the plain penalty (S^0, which trusts the loudest axes) and full whitening (S^-1,
which trusts noise as much). Then each group is scaled to its share of the squared length, however
many units it has: image measurements get the larger one, since no network was fitted on these very
lesions to make them. The score stays linear in h. Power and shares were chosen on validation
lesions (docs/probes.md).

One penalty serves all features: the sum of their losses chooses it far more surely than ten labels
of one could. Chosen and held out as in `logistic`:

    for the probe itself    by approximate leave-one-out log-loss over all labelled lesions;
    for a held-out score    by the same rule on the four fifths of lesions that hold neither the
                            lesion nor its fold, then an exact fit to all lesions but this one.

How much hangs on *which* lesions were labelled: fits to DRAWS draws of the Bayesian bootstrap
(Rubin 1981, doi 10.1214/aos/1176345338), which weighs lesions anew and leaves none out, so that ten
present ones never become none.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.probes.linear import MEASURED, LinearFit, TrainingSet
from models.probes.logistic import leave_one_out

POWER = 0.5  # 0: no whitening; 1: full
FLOOR = 0.02  # of the mean variance, added to every axis
SHARE = 5.0  # of the image measurements, where a tap has 1
GRID = tuple(float(c) for c in 10.0 ** np.arange(-0.5, 1.6, 0.5))
DEFAULT = 10.0**0.5  # where there are too few lesions to choose
FOLDS = 5
DRAWS = 24

Array = NDArray[np.float64]


def fit_whitened(data: TrainingSet) -> LinearFit:
    """One regression a feature. A feature with one class of labels only gets zero weights."""
    fit = LinearFit.empty(data)
    known = np.isfinite(data.labels)
    y = np.where(known, data.labels, 0.0)
    usable = np.flatnonzero(_both(y, known))
    if len(usable) == 0 or data.z.shape[1] == 0:
        return fit
    basis = half_whitening(data.reference, data.groups)
    u, s, vt = np.linalg.svd(data.z @ basis, full_matrices=False)
    x = np.column_stack([u * s, np.ones(len(u))])
    y, known = y[:, usable], known[:, usable]
    chosen = _choose(x, y, known)
    theta = newton_many(x, y, known, 1 / chosen)
    fit.weights[usable] = theta[:, :-1] @ vt @ basis.T
    fit.bias[usable] = theta[:, -1]
    fit.held_out[:, usable] = _held_out(x, y, known, data.seed)
    drawn = np.zeros((DRAWS, data.labels.shape[1], data.z.shape[1] + 1))
    rng = np.random.default_rng([data.seed, len(x), 17])
    for b, weight in enumerate(rng.exponential(size=(DRAWS, len(x), 1))):
        again = newton_many(x, y, known * weight, 1 / chosen, theta, near=1e-3)
        drawn[b][usable] = np.column_stack([again[:, :-1] @ vt @ basis.T, again[:, -1]])
    return replace(fit, drawn=drawn)


def half_whitening(reference: Array, groups: NDArray[np.int64]) -> Array:
    """Basis [d, d], block by group: z @ basis is what the penalty acts upon."""
    basis = np.zeros((reference.shape[1],) * 2)
    for group in np.unique(groups):
        units = np.flatnonzero(groups == group)
        part = reference[:, units]
        scatter = part.T @ part / max(len(part), 1)
        variance, axes = np.linalg.eigh(scatter)
        variance = np.maximum(variance, 0.0)
        mean = float(variance.mean())
        if mean <= 0:
            continue
        scaled = axes * (variance + FLOOR * mean) ** (-POWER / 2)
        length = np.einsum("ij,ij->", scatter @ scaled, scaled)
        share = SHARE if group == MEASURED else 1.0
        basis[np.ix_(units, units)] = scaled * np.sqrt(share / length)
    return basis


def newton_many(
    x: Array,
    y: Array,
    known: NDArray[np.bool_] | Array,
    penalty: float,
    start: Array | None = None,
    near: float = 1e-8,
) -> Array:
    """Coefficients [F, r + 1] of every feature at once, intercept last; see `logistic.newton`.

    x: [n, r + 1] with ones in the last column. y, known: [n, F]; a lesion counts as often as
    `known` says, 0 for nothing. near: the largest change of a score in the last step.
    """
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 0.0
    theta = np.zeros((y.shape[1], x.shape[1])) if start is None else start.copy()
    loss = _losses(x, y, known, ridge, theta)
    for _ in range(60):
        p = _sigmoid(theta @ x.T)
        gradient = ((p - y.T) * known.T) @ x + ridge * theta
        step = np.linalg.solve(_hessians(x, p, known, ridge), gradient[..., None])[..., 0]
        size = np.ones(len(theta))
        for _ in range(20):
            new = _losses(x, y, known, ridge, theta - size[:, None] * step)
            worse = new > loss + 1e-12 * np.abs(loss)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        theta = theta - size[:, None] * step
        loss = _losses(x, y, known, ridge, theta)
        if np.abs(step @ x.T).max() < near:
            break
    return theta


def _held_out(x: Array, y: Array, known: NDArray[np.bool_], seed: int) -> Array:
    n = len(x)
    folds = np.empty(n, dtype=np.int64)
    folds[np.random.default_rng([seed, n]).permutation(n)] = np.arange(n) % FOLDS
    scores = np.full(y.shape, np.nan)
    by_penalty: dict[float, Array] = {}
    for k in range(min(FOLDS, n)):
        outside = folds != k
        chosen = _choose(x[outside], y[outside], known[outside])
        if chosen not in by_penalty:
            by_penalty[chosen] = _without_each(x, y, known, 1 / chosen)
        scores[~outside] = by_penalty[chosen][~outside]
    return scores


def _without_each(x: Array, y: Array, known: NDArray[np.bool_], penalty: float) -> Array:
    scores = np.full(y.shape, np.nan)
    for f in range(y.shape[1]):
        rows = known[:, f]
        scores[rows, f] = leave_one_out(x[rows], y[rows, f], penalty)
    return scores


def _choose(x: Array, y: Array, known: NDArray[np.bool_]) -> float:
    """The C with the smallest approximate leave-one-out log-loss, averaged over features."""
    enough = _both(y, known, least=3)
    if not enough.any():
        return DEFAULT
    y, known = y[:, enough], known[:, enough]
    losses, theta = [], None
    for c in GRID:
        theta = newton_many(x, y, known, 1 / c, theta, near=1e-2)
        scores = _approximate(x, y, known, 1 / c, theta)
        loss = np.logaddexp(0.0, -(2 * y - 1) * scores) * known
        losses.append(float((loss.sum(axis=0) / known.sum(axis=0)).mean()))
    return GRID[int(np.argmin(losses))]


def _approximate(
    x: Array, y: Array, known: NDArray[np.bool_], penalty: float, theta: Array
) -> Array:
    """Scores [n, F] without each lesion after one Newton step."""
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 0.0
    scores = theta @ x.T
    p = _sigmoid(scores)
    solved = np.linalg.solve(_hessians(x, p, known, ridge), x.T)
    leverage = np.einsum("ij,fji->fi", x, solved)
    room = np.maximum(1 - p * (1 - p) * known.T * leverage, 1e-6)
    return np.asarray((scores + (p - y.T) * leverage / room).T)


def _hessians(x: Array, p: Array, known: NDArray[np.bool_] | Array, ridge: Array) -> Array:
    """[F, r + 1, r + 1]; a hair on the diagonal keeps the intercept solvable."""
    w = p * (1 - p) * known.T
    return np.asarray((x.T * w[:, None, :]) @ x + np.diag(ridge + 1e-10))


def _losses(
    x: Array, y: Array, known: NDArray[np.bool_] | Array, ridge: Array, theta: Array
) -> Array:
    s = theta @ x.T
    each = (np.logaddexp(0.0, s) - y.T * s) * known.T
    return np.asarray(each.sum(axis=1) + 0.5 * (theta**2) @ ridge)


def _both(y: Array, known: NDArray[np.bool_], least: int = 1) -> NDArray[np.bool_]:
    """Features with at least so many lesions of either kind, [F]."""
    present = (known & (y == 1)).sum(axis=0)
    return np.asarray(np.minimum(present, known.sum(axis=0) - present) >= least)


def _sigmoid(s: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * s))
