"""Does the lesion lie outside of what the network knows?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.reasons.rounding import significant
from wire.explanation import OutOfDistribution


def outside(plain: NDArray[np.float64], bundle: Bundle) -> OutOfDistribution:
    """plain: activations of the one deterministic pass at the probe taps, [D].

    The flag is decided on the rounded numbers, so that the document agrees with itself.
    """
    score = significant(bundle.ood.score(plain))
    threshold = significant(bundle.ood.threshold)
    return OutOfDistribution(
        score=score, threshold=threshold, flagged=score > threshold, method=bundle.ood.method
    )
