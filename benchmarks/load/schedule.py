"""When the requests of an open loop leave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def constant(rate: float, seconds: float) -> NDArray[np.float64]:
    """Departures in seconds from the start, evenly spaced, the first at 0.

    Raises ValueError for a rate or a time that is not positive.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError("rate and seconds must be positive")
    return np.arange(int(np.ceil(rate * seconds - 1e-9))) / rate


def poisson(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Departures of a Poisson process in [0, seconds), sorted. Same seed, same times."""
    if rate <= 0 or seconds <= 0:
        raise ValueError("rate and seconds must be positive")
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))
