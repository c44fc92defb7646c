"""Made-up lesions with and without features, whose true displacement is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.relevance.directions import Directions

FEATURES = ("washout", "capsule", "scar")
WIDTHS = {"conv": 6, "fc": 5}


@dataclass(frozen=True)
class World:
    """Lesions whose activations h are positive; feature f adds gain[f] * (1 + h_conv[f]) at fc."""

    seed: int = 0

    @property
    def directions(self) -> NDArray[np.float64]:
        return np.random.default_rng([self.seed, 99]).uniform(0.1, 1.0, size=(3, WIDTHS["fc"]))

    def lesions(self, n: int, stream: int = 0) -> dict[str, NDArray[np.float64]]:
        rng = np.random.default_rng([self.seed, stream])
        return {tap: rng.gamma(2.0, 1.0, (n, width)) + 4.0 for tap, width in WIDTHS.items()}

    def move(self, h: dict[str, NDArray[np.float64]], feature: NDArray) -> NDArray[np.float64]:
        strength = np.sqrt(h["conv"][np.arange(len(feature)), feature])
        return self.directions[feature] * strength[:, None]

    def pairs(self, n: int, stream: int = 1, noise: float = 0.0):  # type: ignore[no-untyped-def]
        """(present, absent, feature) of n pairs, features in turn."""
        h, feature = self.lesions(n, stream), np.arange(n) % 3
        rng = np.random.default_rng([self.seed, stream, 7])
        moved = self.move(h, feature) + noise * rng.normal(size=(n, WIDTHS["fc"]))
        return h, {"fc": h["fc"] - moved}, feature

    def fit(self, n: int = 90, noise: float = 0.0) -> Directions:
        present, absent, feature = self.pairs(n, noise=noise)
        return Directions.fit(
            FEATURES, self.lesions(60), present, absent, feature, origin="rendering"
        )
