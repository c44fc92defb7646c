"""Rank correlation over bootstrap draws, sign agreement, and multiple correlation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.resampling import Drawn, Weights


def spearman_drawn(x: NDArray[Any], y: NDArray[Any], w: Weights) -> Drawn:
    """Spearman's rank correlation of x and y [k] in each draw, equal values sharing a mean rank.

    w: [B, k]; where several pairs come from one lesion, w_lesions[:, lesion_of_pair], so that they
    are drawn together. NaN where one of the two is constant. Pairs with NaN count for nothing.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    a, b, weights = a[known], b[known], w[:, known].astype(np.float64)
    total = weights.sum(axis=1, keepdims=True)
    if len(a) == 0:
        return np.full(len(w), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = (_ranks(values, weights) - (total + 1) / 2 for values in (a, b))
        cross = (weights * u * v).sum(axis=1)
        spread = (weights * u * u).sum(axis=1) * (weights * v * v).sum(axis=1)
        return np.where(spread > 0, cross / np.sqrt(spread), np.nan)


def agreement_drawn(x: NDArray[Any], y: NDArray[Any], w: Weights, *, least: float = 0.0) -> Drawn:
    """Share of pairs of one sign, among those with |y| > least and both defined: [k] -> [B].

    A zero x agrees with nothing: a method that is silent on a pair gets no credit for it.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(a) & np.isfinite(b) & (np.abs(b) > least)
    same = np.sign(a[kept]) == np.sign(b[kept])
    total = w[:, kept].sum(axis=1, dtype=np.float64)
    right = w[:, kept] @ same.astype(np.float64)
    return np.divide(right, total, out=np.full(len(w), np.nan), where=total > 0)


def pearson_drawn(x: NDArray[Any], y: NDArray[Any], w: Weights) -> Drawn:
    """Correlation of x and y [k] in each draw; NaN where one of the two is constant."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    a, b, weights = a[known], b[known], w[:, known].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=1)
        mean_a, mean_b = weights @ a / total, weights @ b / total
        cross = weights @ (a * b) / total - mean_a * mean_b
        spread_a = weights @ (a * a) / total - mean_a**2
        spread_b = weights @ (b * b) / total - mean_b**2
        tiny = 1e-12 * max(1.0, float((a * a).sum()), float((b * b).sum()))
        spread = np.where((spread_a > tiny) & (spread_b > tiny), spread_a * spread_b, np.nan)
        return np.asarray(cross / np.sqrt(spread), dtype=np.float64)


def multiple_correlation(
    h: NDArray[Any],
    y: NDArray[Any],
    groups: Sequence[Hashable],
    w: Weights,
    *,
    folds: int = 5,
    seed: int = 0,
) -> Drawn:
    """Cross-validated multiple correlation R of activations h [n, D] with a feature y [n], [B].

    How much of the feature the activations hold linearly: the correlation of y with its out-of-fold
    predictions. Not above 0 means: nothing. NaN in y: not assessed.
    """
    return pearson_drawn(out_of_fold(h, y, groups, folds=folds, seed=seed), y, w)


def out_of_fold(
    h: NDArray[Any],
    y: NDArray[Any],
    groups: Sequence[Hashable],
    *,
    folds: int = 5,
    penalties: Sequence[float] = (0.01, 0.1, 1.0, 10.0, 100.0),
    seed: int = 0,
) -> NDArray[np.float64]:
    """Ridge predictions of y [n] from h [n, D] by models that never saw the lesion, [n].

    Groups (patients) stay whole between the folds; the penalty (times the mean eigenvalue) is
    chosen inside each training part by generalised cross-validation (Golub, Heath & Wahba,
    Technometrics 1979;21:215). NaN where y is, or where a fold leaves too few lesions.
    """
    x, t = np.asarray(h, dtype=np.float64), np.asarray(y, dtype=np.float64)
    out = np.full(len(t), np.nan)
    known = np.flatnonzero(np.isfinite(t))
    fold_of = _folds([groups[int(i)] for i in known], folds, seed)
    for k in range(folds):
        train, held = known[fold_of != k], known[fold_of == k]
        if len(train) > 1 and len(held):
            out[held] = _ridge(x[train], t[train], x[held], penalties)
    return out


def _ranks(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rank of each value in each expanded draw, [B, k], from 1."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    heap = np.cumsum(weights[:, order], axis=1)
    ends = np.r_[starts[1:], len(values)] - 1
    upper = heap[:, ends]
    lower = np.concatenate([np.zeros((len(weights), 1)), upper[:, :-1]], axis=1)
    rank = (lower + upper + 1) / 2
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    out = np.empty_like(heap)
    out[:, order] = rank[:, group]
    return out


def _folds(groups: Sequence[Hashable], count: int, seed: int) -> NDArray[np.int64]:
    names = sorted(set(groups), key=str)  # so that the order of lesions does not matter
    order = np.random.default_rng([seed, 0xF01D]).permutation(len(names))
    fold = {name: int(order[i]) % count for i, name in enumerate(names)}
    return np.array([fold[g] for g in groups], dtype=np.int64)


def _ridge(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    new: NDArray[np.float64],
    penalties: Sequence[float],
) -> NDArray[np.float64]:
    mean, scale = x.mean(axis=0), x.std(axis=0)
    live = scale > 1e-9
    z, z_new = ((v - mean)[:, live] / scale[live] for v in (x, new))
    middle = y.mean()
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    seen = u.T @ (y - middle)
    best, chosen = np.inf, np.zeros(len(s))
    for penalty in penalties:
        kept = s**2 / (s**2 + penalty * max(float((s**2).mean()), 1e-12)) if len(s) else s
        left = len(y) - 1 - kept.sum()
        error = ((y - middle - u @ (kept * seen)) ** 2).sum() / max(left, 1e-9) ** 2
        if left > 0 and error < best:
            best, chosen = error, kept
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = vt.T @ np.where(s > 1e-9, chosen * seen / s, 0.0)
    return np.asarray(middle + z_new @ weights, dtype=np.float64)
