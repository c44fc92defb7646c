"""How far a figure scatters over rounds: extremes, median, and an interval of the median."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
LEVEL = 0.95


def spread(values: ArrayLike, digits: int = 3) -> dict[str, Any]:
    """min, median, max, n of rounds and a 95 % bootstrap interval of the median.

    The draws have a fixed seed, so equal values give equal intervals. With fewer than five rounds
    an interval says nothing, and is left out. Raises ValueError for no values.
    """
    data = np.asarray(values, np.float64).ravel()
    if not data.size:
        raise ValueError("no rounds")
    found: dict[str, Any] = {
        "min": round(float(data.min()), digits),
        "median": round(float(np.median(data)), digits),
        "max": round(float(data.max()), digits),
        "n": int(data.size),
    }
    if data.size >= 5:
        low, high = median_interval(data)
        found["interval"] = [round(low, digits), round(high, digits)]
    return found


def median_interval(data: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile bootstrap of the median, data [n]."""
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(data, size=(DRAWS, data.size)), axis=1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def quantile_of_counts(
    values: Sequence[float], counts: Sequence[int], share: float
) -> float | None:
    """The smallest value at or below which `share` of all counted things lie; None for none."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(np.asarray(counts, np.int64)[order])
    if not total.size or total[-1] == 0:
        return None
    at = int(np.searchsorted(total, share * total[-1], side="left"))
    return float(np.asarray(values, np.float64)[order][min(at, len(order) - 1)])
