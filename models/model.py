"""The port that everything above reasons through: scores, activations, gradients, and recipes.

A recipe stands for many evaluations (models.recipes): it travels as one request. A model without a
way of its own inherits models.recipes.Composed.

Two implementations: in-process (models.bundle.runtime) and remote over Open Inference Protocol v2
(services.common.remote). Nothing above can tell which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.recipes import Draw, Line


@dataclass(frozen=True)
class ModelInfo:
    """What a model declares of itself.

    taps: pooled activation vectors, name -> length, in the network's order ('conv1', ..., 'fc').
    A convolutional tap's full map is the output '<tap>_map', [B, D, x, y, z].
    """

    bundle: str
    classes: tuple[str, ...]
    phases: tuple[str, ...]
    taps: Mapping[str, int]
    input_shape: tuple[int, int, int, int]


class Model(Protocol):
    """A loaded classifier with its gradient graph."""

    @property
    def info(self) -> ModelInfo: ...

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """x: [B, P, X, Y, Z]. outputs: of 'scores', 'logits', tap names, '<tap>_map'.

        'scores' are softmax of the *uncalibrated* logits, [B, C]; temperature is applied above.
        """
        ...

    def gradients(
        self,
        x: NDArray[np.float32],
        weights: Mapping[str, NDArray[np.float32]],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Gradient of sum(weights['logits'] * logits) + sum over taps of weights[tap] * tap.

        weights: 'logits' -> [B, C] and/or tap -> [B, D]; what is left out weighs nothing.
        Returns 'input' -> [B, P, X, Y, Z] and each tap -> [B, D]: the derivative along a uniform
        shift of the tap's map (for 'fc', of the vector itself). wanted: only these of them; what
        lies near the logits is cheap to have alone.
        """
        ...

    def passes(
        self, draw: Draw, outputs: Sequence[str], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Stochastic passes of one lesion: each of `outputs`, a row a pass.

        outputs: of those of `forward`, and 'grad_<tap>' of those of `gradients`. weights: 'logits'
        -> [C] and/or tap -> [D], the same for every pass.
        """
        ...

    def paths(
        self, line: Line, weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Input gradients on the way from comparisons to an image, a row a goal.

        weights: 'logits' -> [G, C] and/or tap -> [G, D], of the goals' targets. Returns 'gradient'
        -> [G, P, X, Y, Z], the mean over the path's points, and 'change' -> [G], the target at the
        image less that at the comparison.
        """
        ...
