"""Rounding, once and before anything is compared, hashed or written.

Two machines agree on a float32 network to about six digits; a document keeps fewer, so that the
same question has the same bytes as its answer.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def decimals(value: float, digits: int = 4) -> float:
    """Rounded to decimals; never minus zero."""
    return round(float(value), digits) + 0.0


def significant(value: float, digits: int = 4) -> float:
    """Rounded to significant digits; never minus zero."""
    value = float(value)
    if value == 0 or not math.isfinite(value):
        return value + 0.0
    return round(value, digits - 1 - math.floor(math.log10(abs(value)))) + 0.0


def to_scale(array: NDArray, digits: int = 4) -> NDArray[np.float32]:
    """An array rounded on one decimal grid, `digits` below its largest absolute value."""
    largest = float(np.abs(array).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return np.asarray(array, np.float32)
    grid = digits - 1 - math.floor(math.log10(largest))
    return (np.round(np.asarray(array, np.float64), grid) + 0.0).astype(np.float32)
