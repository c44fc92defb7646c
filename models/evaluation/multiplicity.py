"""Many comparisons at once: Holm's correction (Scand J Stat 1979;6:65)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p values, in the order given; None (undefined) stays None and counts for nothing.

    Controls the family-wise error whatever the dependence; ties and order don't matter.
    """
    known = [i for i, value in enumerate(p) if value is not None]
    values: NDArray[np.float64] = np.array([p[i] for i in known], dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * (len(values) - np.arange(len(values)))
    adjusted = np.minimum(np.maximum.accumulate(steps), 1.0) if len(values) else steps
    out: list[float | None] = [None] * len(p)
    for place, value in zip(order, adjusted, strict=True):
        out[known[int(place)]] = round(float(value), 6)
    return out


def corrected(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same rows, each 'p' joined by 'p_holm', all of them one family."""
    adjusted = holm([row["p"] for row in rows.values()])
    return {k: {**row, "p_holm": a} for (k, row), a in zip(rows.items(), adjusted, strict=True)}
