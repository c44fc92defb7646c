"""Does a lesion lie outside of what the network knows? Mahalanobis distance of its activations.

Class-conditional means with one pooled, shrunk covariance (Lee et al. 2018, arXiv 1807.03888), in
the concatenated probe taps of a *plain* pass (the centre crop, no variation). Shrinkage keeps a
floor under every direction that training lesions never use, so what leaves their subspace counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.probes.shrinkage import covariance

METHOD = "mahalanobis"


@dataclass(frozen=True)
class OutOfDistributionScore:
    """score(h) = min over classes of |W ((h - mean) / scale) - centre_c| / sqrt(D).

    About 1 for a training lesion. mean, scale: [D]; whitening W: [D, D]; centres: [C, D], whitened.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    whitening: NDArray[np.float32]
    centres: NDArray[np.float32]
    threshold: float
    quantile: float

    method = METHOD

    @property
    def length(self) -> int:
        return len(self.mean)

    @classmethod
    def fit(
        cls,
        reference: NDArray[Any],
        validation: NDArray[Any],
        quantile: float = 0.99,
        class_ids: Sequence[str] | None = None,
    ) -> OutOfDistributionScore:
        """reference: [n, D] training lesions, n >= 2, of classes `class_ids` [n] if given.

        validation: [k, D] lesions that neither network nor reference saw; the threshold is the
        quantile of their scores. Raises InputError where lesions are too few or shapes disagree.
        """
        x = np.asarray(reference, dtype=np.float64)
        v = np.asarray(validation, dtype=np.float64)
        if x.ndim != 2 or len(x) < 2:
            raise InputError(
                "too few lesions", code="too_few", field="reference",
                found=str(list(x.shape)), expected="[n, D] with n of 2 or more",
            )  # fmt: skip
        if v.ndim != 2 or v.shape[1] != x.shape[1] or len(v) == 0:
            raise InputError(
                "the validation lesions do not fit", code="wrong_shape", field="validation",
                found=str(list(v.shape)), expected=f"[k, {x.shape[1]}]",
            )  # fmt: skip
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        live = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
        # A unit that was silent in training and fires now is a strong sign: it keeps a scale.
        usual = float(np.median(deviation[live])) if live.any() else 1.0
        scale = np.where(live, deviation, usual)
        z = (x - mean) / scale
        groups = np.zeros(len(x)) if class_ids is None else np.asarray(class_ids)
        if len(groups) != len(x):
            raise InputError(
                "one class a lesion is needed", code="wrong_shape", field="class_ids",
                found=str(len(groups)), expected=str(len(x)),
            )  # fmt: skip
        names, which = np.unique(groups, return_inverse=True)
        centres = np.stack([z[which == c].mean(axis=0) for c in range(len(names))])
        values, basis = np.linalg.eigh(covariance(z - centres[which]))
        whitening = np.ascontiguousarray((basis / np.sqrt(values)).T)
        unset = cls(
            mean.astype(np.float32),
            scale.astype(np.float32),
            whitening.astype(np.float32),
            (centres @ whitening.T).astype(np.float32),
            0.0,
            quantile,
        )
        threshold = float(np.quantile(unset.scores(v), quantile))
        return cls(unset.mean, unset.scale, unset.whitening, unset.centres, threshold, quantile)

    def scores(self, h: NDArray[Any]) -> NDArray[np.float64]:
        """h [N, D] -> [N]; row by row, so that a score never depends on its neighbours."""
        rows = np.asarray(h, dtype=np.float64).reshape(-1, self.length)
        return np.array([self.score(row) for row in rows])

    def score(self, h: NDArray[Any]) -> float:
        """h [D] -> distance; 1 is usual, above `threshold` is out of distribution."""
        z = (np.asarray(h, dtype=np.float64) - self.mean) / self.scale.astype(np.float64)
        gaps = self.centres - self.whitening.astype(np.float64) @ z
        return float(np.sqrt((gaps**2).mean(axis=1).min()))

    def flagged(self, h: NDArray[Any]) -> bool:
        return self.score(h) > self.threshold

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta)."""
        tensors: dict[str, NDArray[Any]] = {
            "mean": self.mean,
            "scale": self.scale,
            "whitening": self.whitening,
            "centres": self.centres,
        }
        meta = {"method": METHOD, "threshold": self.threshold, "quantile": self.quantile}
        return tensors, meta

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
    ) -> OutOfDistributionScore:
        """Raises KeyError or ValueError where something is missing or shapes disagree."""
        d = len(tensors["mean"])
        fits = (
            tensors["scale"].shape == (d,)
            and tensors["whitening"].shape == (d, d)
            and tensors["centres"].shape[1:] == (d,)
        )
        if meta["method"] != METHOD or not fits:
            raise ValueError("out-of-distribution score: shapes or method disagree")
        return cls(
            tensors["mean"],
            tensors["scale"],
            tensors["whitening"],
            tensors["centres"],
            float(meta["threshold"]),
            float(meta["quantile"]),
        )
