"""A second opinion on the class that does not run through the network.

A multinomial logistic regression on measurements of the image (models.imaging), trained on the
classes of the training lesions. Its mistakes have other causes than the network's, so the two
together know more of when the verdict is wrong than either does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.imaging.measurements import measure, names
from models.voi import Preprocessing

Array = NDArray[np.float64]

GRID = (0.3, 1.0, 3.0, 10.0, 30.0)  # strength of the ridge, in lesions
FOLDS = 5
FARTHEST = 4.0  # standard deviations: no single measurement decides alone


@dataclass(frozen=True)
class ImageExpert:
    """P(class | measurements) = softmax(W clip((m - mean) / scale) + b).

    names: of the measurements, in order [D]. mean, scale: [D]; weights: [C, D]; bias: [C].
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        measured: NDArray[Any],
        classes: NDArray[Any],
        class_ids: Sequence[str],
        names: Sequence[str],
        seed: int = 0,
    ) -> ImageExpert:
        """measured: [n, D] of training lesions; classes: index [n].

        The ridge has the lowest log-loss over five folds of lesions. The order of lesions does not
        matter. Raises InputError where shapes disagree or a number is not finite.
        """
        m, c = np.asarray(measured, dtype=np.float64), np.asarray(classes, dtype=np.int64)
        if m.ndim != 2 or m.shape != (len(c), len(names)) or len(m) == 0:
            raise InputError(
                "measurements do not fit the lesions", code="wrong_shape", field="measured",
                found=str(list(m.shape)), expected=f"[{len(c)}, {len(names)}], one lesion or more",
            )  # fmt: skip
        if not np.isfinite(m).all():
            raise InputError("holds NaN or infinity", code="not_finite", field="measured")
        order = np.lexsort((c, *m.T[::-1]))
        m, c = m[order], c[order]
        mean, spread = m.mean(axis=0), m.std(axis=0)
        scale = np.where(spread > 1e-6 * np.maximum(np.abs(mean), 1e-6), spread, np.inf)
        scale = np.minimum(scale, np.finfo(np.float32).max)  # a constant says nothing
        z = np.clip((m - mean) / scale, -FARTHEST, FARTHEST)
        ridge = _choose(z, c, len(class_ids), seed)
        weights, bias = _fit(z, c, len(class_ids), ridge)
        return cls(
            tuple(class_ids), tuple(names), *(
                a.astype(np.float32) for a in (mean, scale, weights, bias)
            )
        )  # fmt: skip

    def measure(
        self,
        base: NDArray[np.float32],
        size_mm: Sequence[float] | NDArray[np.floating],
        spec: Preprocessing,
        phases: Sequence[str],
    ) -> Array:
        """What it reads of a lesion [D]. base: [P, M, M, M]; size_mm: the VOI's edges [3]."""
        values = measure(base, np.asarray(size_mm, dtype=np.float64), spec, tuple(phases))
        found = dict(zip(names(tuple(phases)), values, strict=True))
        return np.array([found[name] for name in self.names], dtype=np.float64)

    def posterior(self, measured: NDArray[Any]) -> Array:
        """P(class) [..., C] of measurements [..., D]. Not calibrated for strange images."""
        gaps = np.asarray(measured, dtype=np.float64) - self.mean
        z = np.clip(gaps / self.scale.astype(np.float64), -FARTHEST, FARTHEST)
        return _softmax(z @ self.weights.astype(np.float64).T + self.bias)

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta)."""
        tensors = {k: getattr(self, k) for k in ("mean", "scale", "weights", "bias")}
        return tensors, {"classes": list(self.classes), "names": list(self.names)}

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
    ) -> ImageExpert:
        """Raises KeyError or ValueError where something is missing or shapes disagree."""
        one = cls(
            tuple(meta["classes"]), tuple(meta["names"]),
            *(tensors[k] for k in ("mean", "scale", "weights", "bias")),
        )  # fmt: skip
        c, d = len(one.classes), len(one.names)
        shapes = (one.mean.shape, one.scale.shape, one.weights.shape, one.bias.shape)
        if shapes != ((d,), (d,), (c, d), (c,)):
            raise ValueError("image expert: shapes disagree")
        return one


def _choose(z: Array, c: NDArray[np.int64], classes: int, seed: int) -> float:
    if len(z) < 2 * FOLDS:
        return GRID[-1]
    folds = np.empty(len(c), dtype=np.int64)
    rng = np.random.default_rng([seed, 21])
    for k in range(classes):  # each class is dealt out evenly
        rows = rng.permutation(np.flatnonzero(c == k))
        folds[rows] = (np.arange(len(rows)) + k) % FOLDS
    losses = []
    for ridge in GRID:
        total = 0.0
        for fold in range(FOLDS):
            held = folds == fold
            weights, bias = _fit(z[~held], c[~held], classes, ridge)
            shares = _softmax(z[held] @ weights.T + bias)
            own = shares[np.arange(len(shares)), c[held]]
            total -= float(np.log(np.maximum(own, 1e-9)).sum())
        losses.append(total)
    return GRID[int(np.argmin(losses))]


def _fit(z: Array, c: NDArray[np.int64], classes: int, ridge: float) -> tuple[Array, Array]:
    """Weights [C, D] and bias [C] that minimise log-loss + ridge / 2 |W|^2, a sum over lesions.

    Each class weighs the same, however many lesions it has; one without any gets the least.
    """
    from scipy.optimize import minimize

    n, d = z.shape
    target = np.eye(classes)[c]
    counts = np.maximum(target.sum(axis=0), 1.0)
    weigh = (n / classes / counts)[c][:, None]

    def loss(theta: Array) -> tuple[float, Array]:
        w = theta.reshape(classes, d + 1)
        shares = _softmax(z @ w[:, :d].T + w[:, d])
        own = np.log(np.maximum((shares * target).sum(axis=1), 1e-300))
        gap = weigh * (shares - target)
        slope = np.concatenate([gap.T @ z + ridge * w[:, :d], gap.sum(axis=0)[:, None]], axis=1)
        # A hair on the biases: a class without lesions would run away.
        value = -float(weigh[:, 0] @ own) + ridge / 2 * float((w[:, :d] ** 2).sum())
        slope[:, d] += 1e-3 * w[:, d]
        return value + 5e-4 * float((w[:, d] ** 2).sum()), slope.ravel()

    start = np.zeros(classes * (d + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400})
    w = np.asarray(found.x).reshape(classes, d + 1)
    return w[:, :d], w[:, d]


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))
