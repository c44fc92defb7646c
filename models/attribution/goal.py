"""What a map is of, and what a map is: shared by all methods.

A goal is a linear readout of the network's outputs, such as a class's centred logit or a feature's
log-odds, and the image that the lesion is compared with. The map says which voxels make the
difference between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.attribution import chunked
from models.model import Model


@dataclass(frozen=True)
class Goal:
    """weights: 'logits' -> [C] and/or pooled tap -> [D]; the target is their sum of products.

    baseline: the image that the lesion is compared with, [P, K, K, K]; None: zeros, which the
    preprocessing defines as the intensity of parenchyma.
    """

    weights: Mapping[str, NDArray]
    baseline: NDArray[np.float32] | None = None

    def reference(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The baseline as an image like x."""
        return np.zeros_like(x) if self.baseline is None else self.baseline


@dataclass(frozen=True)
class Attribution:
    """map: float32 [P, K, K, K]; change: target at the lesion minus target at the baseline.

    complete: the method promises that the map's sum is the change.
    """

    map: NDArray[np.float32]
    change: float
    complete: bool = True

    @property
    def completeness_error(self) -> float | None:
        """|sum of map - change| / |change|; None where it is not promised or nothing changes."""
        if not self.complete or abs(self.change) < 1e-9:
            return None
        return abs(float(self.map.sum(dtype=np.float64)) - self.change) / abs(self.change)

    @property
    def max_abs(self) -> float:
        return float(np.abs(self.map).max())

    @property
    def share_by_phase(self) -> NDArray[np.float64]:
        """Share of the total absolute attribution in each phase, [P]; zeros for an empty map."""
        sums = np.abs(self.map).reshape(len(self.map), -1).sum(axis=1, dtype=np.float64)
        total = float(sums.sum())
        return sums / total if total > 0 else sums


@dataclass(frozen=True)
class Settings:
    """steps: points on a path or noisy copies. seed: of the noise.

    noise: standard deviation of SmoothGrad's noise over the range of the image. window: edge of an
    occluding cube, voxels; stride: between cubes. cam_tap: where Grad-CAM reads; None: the deepest
    map of at least a quarter of the input's edge.
    """

    steps: int = 16
    seed: int = 0
    noise: float = 0.1
    window: int = 6
    stride: int = 6
    cam_tap: str | None = None


def centred_logit(class_index: int, classes: int) -> NDArray[np.float32]:
    """Weights of the logit of one class minus the mean over classes: e_c - 1/C, [C]."""
    weights = np.full(classes, -1.0 / classes, dtype=np.float32)
    weights[class_index] += 1.0
    return weights


def changes(model: Model, x: NDArray[np.float32], goals: Sequence[Goal]) -> list[float]:
    """Target at x minus target at the baseline, for each goal.

    Goals share the forwards: one of x, one of each different baseline.
    """
    images: list[NDArray[np.float32]] = [x]
    keys: dict[bytes, int] = {}
    rows = []
    for goal in goals:
        key = b"" if goal.baseline is None else goal.baseline.tobytes()
        if key not in keys:
            keys[key] = len(images)
            images.append(goal.reference(x))
        rows.append(keys[key])
    outputs = list(dict.fromkeys(name for goal in goals for name in goal.weights))
    ends = chunked.forward(model, np.stack(images), outputs)
    return [
        sum(
            float(np.asarray(w, np.float64) @ (ends[name][0].astype(np.float64) - ends[name][row]))
            for name, w in goal.weights.items()
        )
        for goal, row in zip(goals, rows, strict=True)
    ]
