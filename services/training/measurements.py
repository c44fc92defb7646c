"""Image measurements of a split, as the probes read them beside the activations."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from models.cnn.data import SplitArrays
from models.imaging.measurements import measure
from models.voi import Preprocessing


def measure_split(
    split: SplitArrays, spec: Preprocessing, phases: Sequence[str], threads: int = 2
) -> NDArray[np.float32]:
    """Of every lesion in file order, [n, len(models.imaging.measurements.names(phases))]."""

    def one(i: int) -> NDArray[np.float32]:
        return measure(split.bases[i], split.sizes_mm[i], spec, phases)

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(one, range(len(split)))))
