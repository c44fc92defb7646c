"""What every runtime asks of the tensors and names that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError


def checked(value: Any, field: str, shape: Sequence[int | None]) -> NDArray[np.float32]:
    """A finite float32 array of the shape; None stands for any length of at least one."""
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        found = str(value.dtype) if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(
            "wrong type", code="wrong_dtype", field=field, found=found, expected="float32"
        )
    fits = value.ndim == len(shape) and all(
        (n > 0 if wanted is None else n == wanted)
        for n, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            "wrong shape",
            code="wrong_shape",
            field=field,
            found=str(list(value.shape)),
            expected="[" + ", ".join("n" if n is None else str(n) for n in shape) + "]",
        )
    if not np.isfinite(value).all():
        raise InputError(
            "holds NaN or infinity", code="not_finite", field=field, expected="finite numbers"
        )
    return np.ascontiguousarray(value)


def asked(outputs: Sequence[str], known: Sequence[str]) -> list[str]:
    """The outputs to compute, each once, in order. Raises InputError for one that is not known."""
    for name in outputs:
        if name not in known:
            raise InputError(
                "no such output",
                code="unknown_output",
                field="outputs",
                found=name,
                expected="one of " + ", ".join(known),
            )
    return list(dict.fromkeys(outputs))


def largest_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest error relative to the largest value, but at least 1; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0)) / scale
