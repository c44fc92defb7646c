"""What every probe fit takes and gives. A probe is one file and one line in `probeset.PROBES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEASURED = -1


@dataclass(frozen=True)
class TrainingSet:
    """Standardised activations of lesions, averaged over passes; a lesion is one row.

    z: [n, d] labelled lesions, no two rows alike. labels: [n, F], 1 present, 0 absent, NaN not
    assessed. reference: [m, d], m >= 2. twin: [n], the row of `reference` that is the same lesion,
    or -1. groups: [d], the tap that a unit belongs to, counted from 0, or MEASURED for an image
    measurement. seed: for the folds.
    """

    z: NDArray[np.float64]
    labels: NDArray[np.float64]
    reference: NDArray[np.float64]
    twin: NDArray[np.int64]
    groups: NDArray[np.int64]
    seed: int


@dataclass(frozen=True)
class LinearFit:
    """score = z @ weights.T + bias: weights [F, d], bias [F].

    held_out: [n, F], the score of each labelled lesion by a probe fitted without it; NaN where the
    lesion is not assessed, or where nothing could be learned without it. drawn: [B, F, d + 1],
    weights and bias of fits to other draws of the labelled lesions; B is 0 for a kind without.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    held_out: NDArray[np.float64]
    drawn: NDArray[np.float64]

    @classmethod
    def empty(cls, data: TrainingSet) -> LinearFit:
        n, features = data.labels.shape
        return cls(
            np.zeros((features, data.z.shape[1])),
            np.zeros(features),
            np.full((n, features), np.nan),
            np.zeros((0, features, data.z.shape[1] + 1)),
        )


Fit = Callable[[TrainingSet], LinearFit]
