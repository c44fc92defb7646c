"""Whose activations stand for 'any lesion', and whose for 'a lesion with the feature'."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError


def draw_marginal(
    passes: NDArray[Any], classes: NDArray[Any], per_class: int, seed: int
) -> NDArray[np.float64]:
    """`per_class` draws of each class, with replacement: a lesion of it, then one of its passes.

    passes: [n, T, D] of training lesions. classes: [n]. Returns [classes * per_class, D]; a class
    without lesions gives no rows. SPIE 2019 draws 1,000 a class from the training lesions.
    """
    rng = np.random.default_rng([seed, 19])
    h, y = np.asarray(passes), np.asarray(classes)
    rows = []
    for c in np.unique(y):
        lesions = np.flatnonzero(y == c)
        chosen = lesions[rng.integers(0, len(lesions), per_class)]
        rows.append(h[chosen, rng.integers(0, h.shape[1], per_class)])
    return np.concatenate(rows).astype(np.float64)


def conditional(passes: NDArray[Any], labels: NDArray[Any]) -> list[NDArray[np.float64]]:
    """For each feature the passes of the lesions that show it, [n_f * T, D]; every pass is a row.

    passes: [n, T, D]. labels: [n, F], 1 present; whatever else is not used. Raises InputError
    where the shapes don't fit.
    """
    h, y = np.asarray(passes), np.asarray(labels, dtype=np.float64)
    if h.ndim != 3 or y.ndim != 2 or len(h) != len(y):
        raise InputError(
            "activations and labels do not fit", field="passes",
            found=f"{h.shape} and {y.shape}", expected="[n, T, D] and [n, F]",
        )  # fmt: skip
    return [h[y[:, f] == 1].reshape(-1, h.shape[2]).astype(np.float64) for f in range(y.shape[1])]


def log_mean_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log of the mean of exp(values) over the last axis, without overflow; -inf where all are."""
    top = values.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(
            np.log(np.exp(values - safe).mean(axis=-1)) + safe[..., 0], dtype=np.float64
        )
