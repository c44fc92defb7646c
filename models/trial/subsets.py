"""Nested training subsets of a pool, for learning curves: the smaller is part of the larger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError


def nested(
    patients: Sequence[str], sizes: Sequence[int], seed: int
) -> dict[int, NDArray[np.int64]]:
    """Size -> indices of that many lesions of the pool, sorted.

    patients: the patient of each lesion in the pool. Patients are put in a random order and their
    lesions taken one patient after another, so a subset holds whole patients but for its last one.
    Raises InputError where the pool is smaller than a size.
    """
    if not sizes or min(sizes) < 1 or max(sizes) > len(patients):
        raise InputError(
            "the pool has not enough lesions", code="too_few", field="sizes",
            found=", ".join(map(str, sizes)), expected=f"1 to {len(patients)}",
        )  # fmt: skip
    names = np.asarray(patients)
    order = np.random.default_rng([seed, 15]).permutation(np.unique(names))
    rank = {name: i for i, name in enumerate(order)}
    taken = np.argsort([rank[name] for name in names], kind="stable")
    return {size: np.sort(taken[:size]).astype(np.int64) for size in sizes}
