"""From an out-of-distribution score to odds that the lesion is none of the known kinds.

The share u of known lesions that are at least as strange is a p-value; u ** (KAPPA - 1) * KAPPA
turns it into a Bayes factor that no p-value can beat on average (Shafer et al. 2011, doi
10.1214/10-STS345; Sellke, Bayarri & Berger 2001, doi 10.1198/000313001300339950).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PRIOR_ODDS = 0.1  # that a lesion is of none of the known kinds, before it is looked at
KAPPA = 0.5
MOST = 0.5  # reached where one known lesion in a hundred is as strange: the usual limit
_TAIL = 0.1  # share of known lesions that the tail is fitted to


@dataclass(frozen=True)
class Strangeness:
    """known: out-of-distribution scores over their limit of lesions of known kinds, sorted [k];
    rate: of the exponential tail of their logarithms beyond the last tenth."""

    known: NDArray[np.float32]
    rate: float

    @classmethod
    def fit(cls, ratios: NDArray[Any]) -> Strangeness:
        """ratios: score / limit of lesions that neither network nor score was fitted to [k]; k may
        be 0, then nothing is strange."""
        r = np.sort(np.maximum(np.asarray(ratios, dtype=np.float64), 1e-6))
        if len(r) < 2:
            return cls(r[:0].astype(np.float32), 1.0)
        many = max(int(np.ceil(_TAIL * len(r))), 1)
        start = np.log(r[-many - 1]) if many < len(r) else np.log(r[0])
        beyond = float(np.mean(np.log(r[-many:]) - start))
        return cls(r.astype(np.float32), 1.0 / max(beyond, 1e-3))

    def share(self, ratios: NDArray[Any]) -> Array:
        """The share of known lesions that are as strange or stranger [n]; above the tail's start
        by its exponential form, so that it never is zero."""
        r = np.maximum(np.asarray(ratios, dtype=np.float64), 1e-6)
        k = len(self.known)
        if k < 2:
            return np.ones(r.shape)
        many = max(int(np.ceil(_TAIL * k)), 1)
        start = float(self.known[max(k - many - 1, 0)])
        counted = (k - np.searchsorted(self.known, r.astype(np.float32), "left") + 1) / (k + 1)
        tail = (many + 1) / (k + 1) * np.exp(-self.rate * (np.log(r) - np.log(start)))
        return np.asarray(np.where(r > start, np.minimum(tail, counted.max(initial=1.0)), counted))

    def odds(self, ratios: NDArray[Any]) -> Array:
        """Odds that a lesion is of no known kind [n]; they never fall as the score rises.

        At most MOST, which is enough for a flag: where a whole cohort is strange (another scanner),
        the other opinions still tell its lesions apart.
        """
        u = np.clip(self.share(ratios), 1e-12, 1.0)
        return np.minimum(PRIOR_ODDS * KAPPA * u ** (KAPPA - 1), MOST)
