"""How much does a found feature weigh? First-order form (METHOD section 6).

    influence = mean over probe taps t of
                grad_{h_t} (z_c - mean_k z_k) . (step of the probe from 'absent' to 'present' at t)

Each tap is a cut through the same network, and moving the activations at one cut moves those behind
it; a sum over cuts would count one path several times, so the mean is taken, which stays in logits.
It is computed in every stochastic pass; the mean over passes is the influence and its t interval
the uncertainty. The centred logit is used because softmax ignores what
all logits share: evidence that raises every class equally weighs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from models.reasons.rounding import significant
from wire.explanation import Influence


def influence(slopes: NDArray, direction: NDArray, taps: int) -> Influence:
    """slopes: gradient of the centred logit at the probe taps, a row a pass [n, D]. direction: [D],
    the step, joined over `taps` probe taps as the slopes are.

    The interval covers the mean over passes, not the lesion; one pass gives none.
    """
    values = slopes.astype(np.float64) @ np.asarray(direction, np.float64) / taps
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return Influence(value=significant(mean), ci=None)
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    return Influence(
        value=significant(mean), ci=(significant(mean - half), significant(mean + half))
    )
