"""Two classifiers on the same lesions: the difference, with an interval over lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.classification import number
from models.evaluation.intervals import bootstrap


def paired_accuracy(
    first: NDArray[Any], second: NDArray[Any], *, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Accuracy of the first less that of the second. Both: bool [n], right or wrong a lesion.

    The bootstrap draws lesions, each with both answers, so what is easy for both cancels out.
    only_first, only_second: lesions that one alone got right (McNemar's table).
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    gap = a.astype(float) - b.astype(float)
    ci = bootstrap(lambda i: float(gap[i].mean()), len(gap), draws=draws, seed=seed)
    return {
        "difference": number(float(gap.mean()) if len(gap) else float("nan")),
        "ci": None if ci is None else [round(v, 6) for v in ci],
        "only_first": int((a & ~b).sum()),
        "only_second": int((b & ~a).sum()),
        "n": len(gap),
    }
