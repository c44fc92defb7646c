"""What every probe fit takes and gives. A probe is one file and one line in `probeset.PROBES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingSet:
    """Standardised activations of lesions, averaged over passes; a lesion is one row.

    z: [n, d] labelled lesions, no two rows alike. labels: [n, F], 1 present, 0 absent, NaN not
    assessed. reference: [m, d], m >= 2. twin: [n], the row of `reference` that is the same lesion,
    or -1. seed: for the folds.
    """

    z: NDArray[np.float64]
    labels: NDArray[np.float64]
    reference: NDArray[np.float64]
    twin: NDArray[np.int64]
    seed: int


@dataclass(frozen=True)
class LinearFit:
    """score = z @ weights.T + bias: weights [F, d], bias [F].

    held_out: [n, F], the score of each labelled lesion by a probe fitted without it; NaN where the
    lesion is not assessed, or where nothing could be learned without it.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    held_out: NDArray[np.float64]

    @classmethod
    def empty(cls, data: TrainingSet) -> LinearFit:
        n, features = data.labels.shape
        return cls(
            np.zeros((features, data.z.shape[1])),
            np.zeros(features),
            np.full((n, features), np.nan),
        )


Fit = Callable[[TrainingSet], LinearFit]
