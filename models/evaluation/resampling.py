"""Bootstrap draws as multiplicities, shared by every statistic of one set of lesions.

A draw of n lesions with replacement is the number of times that each lesion came. A statistic is a
function of w [B, n] -> [B], whose row 0 counts every lesion once (the sample itself) and whose
other rows are draws. Two statistics of the same w are paired: subtract them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.classification import number

Drawn = NDArray[np.float64]  # [B]: a statistic of the sample, then of each draw
Weights = NDArray[np.float32]  # [B, n]


def multiplicities(
    n: int, *, draws: int = 1000, seed: int = 0, groups: Sequence[Hashable] | None = None
) -> Weights:
    """How often each of n lesions comes: [1 + draws, n], the first row all ones.

    groups: [n], draw whole groups (patients) in place of lesions; their lesions come together.
    Deterministic in (n, draws, seed, groups); names of groups don't matter, their order does.
    """
    w = np.ones((1 + draws, n), dtype=np.float32)
    if n == 0 or draws == 0:
        return w
    rng = np.random.default_rng([seed, 0xB007])
    which = _numbered(groups) if groups is not None else np.arange(n)
    count = int(which.max()) + 1
    for row in w[1:]:
        row[:] = np.bincount(rng.integers(0, count, count), minlength=count)[which]
    return w


def _numbered(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(g, len(seen)) for g in groups], dtype=np.int64)


def interval(values: Drawn) -> list[float] | None:
    """95 % percentile interval of the draws; None where fewer than half of them are defined."""
    drawn = np.asarray(values, dtype=np.float64)[1:]
    defined = drawn[np.isfinite(drawn)]
    if len(drawn) == 0 or len(defined) < len(drawn) / 2:
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return [round(float(low), 6), round(float(high), 6)]


def figure(values: Drawn) -> dict[str, Any]:
    """{'value', 'ci'} of a statistic; None where it is undefined."""
    value = number(float(values[0]))
    return {"value": value, "ci": interval(values) if value is not None else None}


def keyed(name: str, values: Drawn) -> dict[str, Any]:
    """{name: value, name_ci: interval}, as a report has it."""
    found = figure(values)
    return {name: found["value"], f"{name}_ci": found["ci"]}


def difference(first: Drawn, second: Drawn) -> dict[str, Any]:
    """The first less the second, paired: {'difference', 'ci', 'p'}; both of the same draws.

    p: two-sided, by inverting the percentile interval; no smaller than 2 / (draws + 1).
    """
    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    drawn = gap[1:][np.isfinite(gap[1:])]
    found = figure(gap)
    p = None
    if found["ci"] is not None:
        below, above = int((drawn <= 0).sum()), int((drawn >= 0).sum())
        p = round(min(1.0, 2 * (min(below, above) + 1) / (len(drawn) + 1)), 6)
    return {"difference": found["value"], "ci": found["ci"], "p": p}
