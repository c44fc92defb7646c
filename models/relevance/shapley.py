"""Interactions shared out: Shapley values of features over any value of 'these are still there'.

    phi_f = sum over S without f of |S|! (k - |S| - 1)! / k! * (v(S + f) - v(S))

Shapley 1953. Exact up to 8 features, one evaluation for each of the 2^k sets; above that the mean
over random orders (Castro et al. 2009, doi 10.1016/j.cor.2008.04.004), each with its reverse, which
halves the noise. Either way the values of all features add up to v(all) - v(none).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# kept [m, k], True where a feature is still there -> [m, ...]
Value = Callable[[NDArray[np.bool_]], NDArray[np.floating]]

EXACT = 8
ORDERS = 128


@dataclass(frozen=True)
class Shapley:
    """values: [k, ...]. error: standard error of each over sampled orders, None where exact.

    everything, nothing: the value of all features and of none, [...].
    """

    values: Array
    error: Array | None
    everything: Array
    nothing: Array


def shapley(value: Value, k: int, *, orders: int = ORDERS, seed: int = 0) -> Shapley:
    """Share v(all) - v(none) out over k features. k = 0: no value at all, v(none) is all there is.

    orders: random orders above 8 features, rounded up to an even number; same seed, same values.
    """
    if k <= EXACT:
        return _exact(value, k)
    return _sampled(value, k, max(1, (orders + 1) // 2), seed)


def _exact(value: Value, k: int) -> Shapley:
    sets = np.arange(1 << k)
    kept = (sets[:, None] >> np.arange(k)) & 1 == 1
    v = np.asarray(value(kept), dtype=np.float64)
    size = kept.sum(axis=1)
    weight = np.array([factorial(s) * factorial(k - s - 1) / factorial(k) for s in range(k)])
    values = np.zeros((k, *v.shape[1:]))
    for f in range(k):
        without = sets[~kept[:, f]]
        gain = v[without | (1 << f)] - v[without]
        values[f] = np.tensordot(weight[size[without]], gain, axes=1)
    return Shapley(values, None, v[-1], v[0])


def _sampled(value: Value, k: int, pairs: int, seed: int) -> Shapley:
    rng = np.random.default_rng([seed, k])
    drawn = np.stack([rng.permutation(k) for _ in range(pairs)])
    order = np.stack([drawn, drawn[:, ::-1]], axis=1).reshape(-1, k)
    # Row j of an order's block holds the first j features of that order.
    place = np.argsort(order, axis=1)
    kept = place[:, None, :] < np.arange(k + 1)[None, :, None]
    flat, back = np.unique(kept.reshape(-1, k), axis=0, return_inverse=True)
    v = np.asarray(value(flat), dtype=np.float64)[back.reshape(len(order), k + 1)]
    gain = np.diff(v, axis=1)  # of the feature at each place of the order
    rows = np.arange(len(order))[:, None]
    mine = gain[rows, place].reshape(pairs, 2, k, *v.shape[2:]).mean(axis=1)
    error = (
        mine.std(axis=0, ddof=1) / np.sqrt(pairs) if pairs > 1 else np.full(mine.shape[1:], np.nan)
    )
    return Shapley(mine.mean(axis=0), error, v[0, -1], v[0, 0])
