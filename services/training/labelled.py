"""Which training lesions are labelled with features: few, as at a site that starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def choose_labelled(
    features: NDArray[np.float32], per_feature: int, seed: int
) -> NDArray[np.int64]:
    """Indices of the lesions to label: for each feature `per_feature` of those that show it.

    features: [n, F] with 1 present, 0 absent, NaN not assessed. The union is what a reader would
    label, with *every* feature on each lesion: the same lesions then serve as negatives of one
    another, which matters more than the kind of probe (METHOD, section 11). Lesions on which more
    features were assessed go first. Sorted.
    """
    rng = np.random.default_rng([seed, 14])
    assessed = np.isfinite(features).sum(axis=1)
    chosen: set[int] = set()
    for column in features.T:
        present = rng.permutation(np.flatnonzero(column == 1))
        order = np.argsort(-assessed[present], kind="stable")
        chosen.update(int(i) for i in present[order][:per_feature])
    return np.array(sorted(chosen), dtype=np.int64)
