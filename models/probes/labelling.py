"""Which training lesions are labelled with features: few, as at a site that starts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def choose_labelled(features: NDArray[Any], per_feature: int, seed: int) -> NDArray[np.int64]:
    """Indices of the lesions to label: for each feature `per_feature` of those that show it.

    features: [n, F] with 1 present, 0 absent, NaN not assessed. The union is what a reader would
    label, with *every* feature on each lesion: the same lesions then serve as negatives of one
    another, which matters more than the kind of probe (docs/probes.md). Lesions on which more
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


def choose_any(features: NDArray[Any], count: int, seed: int) -> NDArray[np.int64]:
    """`count` lesions at random of those on which anything was assessed: no need to know which
    lesion shows what before it is labelled. Sorted.
    """
    candidates = np.flatnonzero(np.isfinite(features).any(axis=1))
    chosen = np.random.default_rng([seed, 15]).permutation(candidates)[:count]
    return np.sort(chosen).astype(np.int64)


def positives_only(features: NDArray[Any], per_feature: int, seed: int) -> NDArray[np.float64]:
    """Labels as in the published protocol, [n, F]: `per_feature` lesions a feature count as present
    and every other lesion, labelled or not, as absent.
    """
    rng = np.random.default_rng([seed, 14])
    labels = np.zeros(features.shape)
    for f, column in enumerate(features.T):
        labels[rng.permutation(np.flatnonzero(column == 1))[:per_feature], f] = 1.0
    return labels
