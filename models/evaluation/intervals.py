"""95 % intervals: Wilson for a proportion, bootstrap over lesions for everything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927). No trials: (0, 1)."""
    if n == 0:
        return 0.0, 1.0
    p, zz = successes / n, Z * Z
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = Z / (1 + zz / n) * np.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], n: int, *, draws: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of statistic(indices of n lesions drawn with replacement).

    The lesion is the unit. Draws in which the statistic is undefined (NaN) are left out; None where
    fewer than half of them are defined.
    """
    if n == 0:
        return None
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, n, n)) for _ in range(draws)])
    values = values[np.isfinite(values)]
    if len(values) < draws / 2:
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
