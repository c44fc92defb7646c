"""How well do readers agree? Percent agreement, Cohen's and Fleiss' kappa, with intervals.

Ratings are an integer array [lesions, readers]: a category from 0 on, or MISSING where a reader did
not rate a lesion. The lesion is the unit of every interval. Kappa is undefined (None) where every
rating is of one category: chance alone then explains full agreement, so the prevalence of each
category is reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.evaluation.intervals import bootstrap

MISSING = -1
Ratings = NDArray[np.int64]
Means = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A statistic over n lesions. value, ci (95 %, bootstrap over lesions): None if undefined."""

    value: float | None
    ci: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class Pair:
    """Two readers on the n lesions that both rated."""

    readers: tuple[str, str]
    percent: Figure
    kappa: Figure


@dataclass(frozen=True)
class Agreement:
    """Readers on one feature.

    lesions: rated at all; shared: rated by two readers or more, the unit of percent and fleiss.
    prevalence: share of each category among all ratings.
    """

    lesions: int
    shared: int
    prevalence: tuple[float, ...]
    percent: Figure
    fleiss: Figure
    pairs: tuple[Pair, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def percent_agreement(counts: NDArray[Any]) -> float:
    """Share of agreeing pairs of ratings, averaged over lesions. counts: [lesions, categories].

    Fleiss' mean P_i; lesions with fewer than two ratings are left out. NaN where none is left.
    """
    return _percent(_mean(_per_lesion(counts)))


def fleiss_kappa(counts: NDArray[Any]) -> float:
    """Fleiss' kappa (Psychological Bulletin 1971;76:378). counts: [lesions, categories].

    Where lesions have different numbers of readers, P_i and the shares of categories are taken a
    lesion first and then averaged, so that each lesion weighs the same; with equal numbers this is
    the published formula. Lesions with fewer than two ratings are left out. NaN where undefined.
    """
    return _fleiss(_mean(_per_lesion(counts)))


def cohen_kappa(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Cohen's kappa, unweighted (Educ Psychol Meas 1960;20:37). Both [lesions], categories.

    Lesions that one of the two did not rate are left out. NaN where undefined.
    """
    a, b = _both(first, second)
    return _cohen(_mean(_joint(a, b, int(max(a.max(), b.max())) + 1))) if len(a) else float("nan")


def category_counts(ratings: Ratings, categories: int) -> NDArray[np.int64]:
    """[lesions, readers] -> how many readers chose each category, [lesions, categories]."""
    return (ratings[:, :, None] == np.arange(categories)).sum(axis=1)


def agreement(
    ratings: Ratings,
    readers: Sequence[str],
    *,
    categories: int = 2,
    draws: int = 1000,
    seed: int = 0,
) -> Agreement:
    """All figures for one feature. ratings: [lesions, readers]; see the module's first lines.

    Deterministic in (ratings, seed). Raises InputError for a wrong shape or category.
    """
    r = np.asarray(ratings, dtype=np.int64)
    if r.ndim != 2 or r.shape[1] != len(readers):
        raise InputError(
            "ratings of another shape", code="wrong_shape", field="ratings",
            found=str(list(r.shape)), expected=f"[lesions, {len(readers)}]",
        )  # fmt: skip
    if r.size and (r.min() < MISSING or r.max() >= categories):
        raise InputError(
            "no such category", code="wrong_value", field="ratings",
            found=f"{r.min()} to {r.max()}", expected=f"{MISSING} (missing) to {categories - 1}",
        )  # fmt: skip
    counts = category_counts(r, categories)
    total = max(int(counts.sum()), 1)
    shared = _per_lesion(counts)
    pairs = []
    for i, j in combinations(range(len(readers)), 2):
        cells = _joint(*_both(r[:, i], r[:, j]), categories)
        if len(cells):
            pairs.append(
                Pair(
                    (readers[i], readers[j]),
                    _figure(_same, cells, draws, seed),
                    _figure(_cohen, cells, draws, seed),
                )
            )
    return Agreement(
        lesions=int((counts.sum(axis=1) > 0).sum()),
        shared=len(shared),
        prevalence=tuple(float(v) for v in counts.sum(axis=0) / total),
        percent=_figure(_percent, shared, draws, seed),
        fleiss=_figure(_fleiss, shared, draws, seed),
        pairs=tuple(pairs),
    )


# Each statistic is a function of means over lesions, so that a bootstrap draw is one mean.


def _figure(
    statistic: Callable[[Means], float], per_lesion: NDArray[np.float64], draws: int, seed: int
) -> Figure:
    n = len(per_lesion)
    value = statistic(_mean(per_lesion)) if n else float("nan")
    if not np.isfinite(value):
        return Figure(None, None, n)

    def drawn(lesions: NDArray[np.int64]) -> float:
        return statistic(np.bincount(lesions, minlength=n) @ per_lesion / n)

    return Figure(value, bootstrap(drawn, n, draws=draws, seed=seed), n)


def _mean(per_lesion: NDArray[np.float64]) -> Means:
    if not len(per_lesion):
        return np.full(per_lesion.shape[1], np.nan)
    return per_lesion.mean(axis=0)


def _per_lesion(counts: NDArray[Any]) -> NDArray[np.float64]:
    """P_i and the share of each category, [lesions with two ratings or more, 1 + categories]."""
    c = np.asarray(counts, dtype=np.float64)
    c = c[c.sum(axis=1) >= 2]
    n = c.sum(axis=1, keepdims=True)
    agreeing = (c * (c - 1)).sum(axis=1, keepdims=True) / (n * (n - 1))
    return np.concatenate([agreeing, c / n], axis=1)


def _joint(a: Ratings, b: Ratings, categories: int) -> NDArray[np.float64]:
    """Which cell of the two readers' table each lesion is in, [lesions, categories squared]."""
    return np.eye(categories**2)[a * categories + b]


def _percent(means: Means) -> float:
    return float(means[0])


def _fleiss(means: Means) -> float:
    return _beyond_chance(float(means[0]), float((means[1:] ** 2).sum()))


def _same(means: Means) -> float:
    return float(np.trace(_square(means)))


def _cohen(means: Means) -> float:
    table = _square(means)
    return _beyond_chance(float(np.trace(table)), float(table.sum(axis=1) @ table.sum(axis=0)))


def _square(means: Means) -> NDArray[np.float64]:
    k = round(len(means) ** 0.5)
    return means.reshape(k, k)


def _both(first: NDArray[Any], second: NDArray[Any]) -> tuple[Ratings, Ratings]:
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    rated = (a != MISSING) & (b != MISSING)
    return a[rated], b[rated]


def _beyond_chance(observed: float, expected: float) -> float:
    if 1 - expected < 1e-12:
        return float("nan")
    return (observed - expected) / (1 - expected)
