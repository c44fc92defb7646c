"""Does the lesion lie outside of what the network knows?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.reasons.rounding import significant
from wire.explanation import OutOfDistribution


def outside(
    outputs: Mapping[str, NDArray[Any]],
    x: NDArray[np.float32],
    bundle: Bundle,
    missing: Sequence[str] = (),
) -> OutOfDistribution:
    """outputs: tap -> [1, D_tap] of the one deterministic pass. x: its tensor [1, P, K, K, K].
    missing: phases that were not acquired; such a lesion is compared with its like.

    The flag is decided on the rounded numbers, so that the document agrees with itself.
    """
    ood = bundle.ood.without(missing)
    score = significant(ood.score(ood.read(outputs, x)[0]))
    threshold = significant(ood.threshold)
    return OutOfDistribution(
        score=score, threshold=threshold, flagged=score > threshold, method=ood.method
    )
