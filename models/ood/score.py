"""How far is a lesion from the training lesions? Distance to the fifth nearest of them.

The space: activations of *every* tap at the plain pass, as square roots (rectified activations are
skewed, and silence must not lie near the mean), joined with a description of the image (image.py);
standardised and whitened with the pooled, shrunk within-class covariance, as the Mahalanobis score
does (Lee et al. 2018, arXiv 1807.03888); then the distance to the k-th nearest training lesion (Sun
et al. 2022, arXiv 2204.06507), which asks nothing of a class's shape. Chosen on validation lesions,
spoiled ones and a class held out of training; see docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.ood import image
from models.probes.shrinkage import covariance

METHOD = "nearest_neighbours"
MAHALANOBIS = "mahalanobis"  # of bundles of schema 1
NEIGHBOURS = 5


def readout(
    activations: Mapping[str, NDArray[Any]],
    x: NDArray[np.float32],
    taps: Sequence[str],
    *,
    root: bool = True,
    with_image: bool = True,
) -> NDArray[np.float64]:
    """What the score reads of lesions, [n, D].

    activations: tap -> [n, D_tap], of the plain pass. x: [n, P, K, K, K], the tensors of that pass.
    root: signed square root of the activations. with_image: the image's description after them.
    """
    h = np.concatenate([np.asarray(activations[t], dtype=np.float64) for t in taps], axis=1)
    if root:
        h = np.sign(h) * np.sqrt(np.abs(h))
    if not with_image:
        return h
    return np.concatenate([h, np.stack([image.describe(lesion) for lesion in x])], axis=1)


@dataclass(frozen=True)
class OutOfDistributionScore:
    """score(h) = distance from W ((h - mean) / scale) to its k-th nearest reference, over sqrt(D).

    About 1 for a training lesion. mean, scale: [D]; whitening W: [D, D]; references: [m, D],
    whitened. taps, root, with_image: what `readout` joins to h. neighbours: k. partial: the score
    of lesions without some phases ('portal_venous+delayed'), fitted on lesions without them; a
    phase that was not acquired would be strange to the others.
    """

    taps: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    whitening: NDArray[np.float32]
    references: NDArray[np.float32]
    threshold: float
    quantile: float
    neighbours: int = NEIGHBOURS
    root: bool = True
    with_image: bool = True
    method: str = METHOD
    partial: Mapping[str, OutOfDistributionScore] = field(default_factory=dict)

    def without(self, missing: Sequence[str]) -> OutOfDistributionScore:
        """The score for lesions that lack these phases, in order; itself where none was fitted."""
        return self.partial.get("+".join(missing), self)

    @property
    def length(self) -> int:
        return len(self.mean)

    def expected_length(self, taps: Mapping[str, int], phases: int) -> int:
        """D for a network with these taps; -1 where it lacks one."""
        if any(tap not in taps for tap in self.taps):
            return -1
        return sum(taps[t] for t in self.taps) + (image.length(phases) if self.with_image else 0)

    @classmethod
    def fit(
        cls,
        taps: Sequence[str],
        reference: NDArray[Any],
        validation: NDArray[Any],
        quantile: float = 0.99,
        class_ids: Sequence[str] | None = None,
    ) -> OutOfDistributionScore:
        """reference: [n, D] readout of training lesions, n >= 2, of classes `class_ids` if given.

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
        groups = np.zeros(len(x)) if class_ids is None else np.asarray(class_ids)
        if len(groups) != len(x):
            raise InputError(
                "one class a lesion is needed", code="wrong_shape", field="class_ids",
                found=str(len(groups)), expected=str(len(x)),
            )  # fmt: skip
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        live = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
        # A unit that was silent in training and fires now is a strong sign: it keeps a scale.
        usual = float(np.median(deviation[live])) if live.any() else 1.0
        scale = np.where(live, np.maximum(deviation, 0.1 * usual), usual)
        z = (x - mean) / scale
        names, which = np.unique(groups, return_inverse=True)
        centres = np.stack([z[which == c].mean(axis=0) for c in range(len(names))])
        values, basis = np.linalg.eigh(covariance(z - centres[which]))
        whitening = np.ascontiguousarray((basis / np.sqrt(values)).T)
        unset = cls(
            tuple(taps),
            mean.astype(np.float32),
            scale.astype(np.float32),
            whitening.astype(np.float32),
            (z @ whitening.T).astype(np.float32),
            0.0,
            quantile,
        )
        return replace(unset, threshold=float(np.quantile(unset.scores(v), quantile)))

    def read(
        self, activations: Mapping[str, NDArray[Any]], x: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """`readout` as this score was fitted: tap -> [n, D_tap] and tensors [n, P, ...] -> h."""
        return readout(activations, x, self.taps, root=self.root, with_image=self.with_image)

    def scores(self, h: NDArray[Any]) -> NDArray[np.float64]:
        """h [N, D] -> [N]; row by row, so that a score never depends on its neighbours."""
        rows = np.asarray(h, dtype=np.float64).reshape(-1, self.length)
        return np.array([self.score(row) for row in rows])

    def score(self, h: NDArray[Any]) -> float:
        """h [D] -> distance; 1 is usual, above `threshold` is out of distribution."""
        z = (np.asarray(h, dtype=np.float64) - self.mean) / self.scale.astype(np.float64)
        gaps = self.references - self.whitening.astype(np.float64) @ z
        squares = np.einsum("ij,ij->i", gaps, gaps) / self.length
        k = min(self.neighbours, len(squares)) - 1
        return float(np.sqrt(np.partition(squares, k)[k]))

    def flagged(self, h: NDArray[Any]) -> bool:
        return self.score(h) > self.threshold

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta)."""
        tensors: dict[str, NDArray[Any]] = {
            "mean": self.mean,
            "scale": self.scale,
            "whitening": self.whitening,
            "references": self.references,
        }
        meta: dict[str, Any] = {
            "method": self.method,
            "taps": list(self.taps),
            "root": self.root,
            "with_image": self.with_image,
            "neighbours": self.neighbours,
            "threshold": self.threshold,
            "quantile": self.quantile,
        }
        for name, score in self.partial.items():
            more, part = score.to_parts()
            tensors |= {f"partial/{name}/{key}": value for key, value in more.items()}
            meta.setdefault("partial", {})[name] = part
        return tensors, meta

    @classmethod
    def from_parts(
        cls,
        tensors: Mapping[str, NDArray[Any]],
        meta: Mapping[str, Any],
        probe_taps: Sequence[str] = (),
    ) -> OutOfDistributionScore:
        """Raises KeyError or ValueError where something is missing or shapes disagree.

        The score of bundles of schema 1 was the distance to the nearest class centre at the probe
        taps: the same formula with the centres for references and one neighbour.
        """
        if meta["method"] == MAHALANOBIS:
            tensors = {**tensors, "references": tensors["centres"]}
            meta = {
                **meta,
                "taps": list(probe_taps),
                "root": False,
                "with_image": False,
                "neighbours": 1,
            }
        d, k = len(tensors["mean"]), int(meta["neighbours"])
        references = tensors["references"]
        fits = (
            tensors["scale"].shape == (d,)
            and tensors["whitening"].shape == (d, d)
            and references.shape[1:] == (d,)
            and len(references) >= 1
            and k >= 1
        )
        if meta["method"] not in (METHOD, MAHALANOBIS) or not fits:
            raise ValueError("out-of-distribution score: shapes or method disagree")
        partial = {}
        for name, part in meta.get("partial", {}).items():
            own = f"partial/{name}/"
            mine = {k.removeprefix(own): v for k, v in tensors.items() if k.startswith(own)}
            partial[name] = cls.from_parts(mine, part, probe_taps)
            if (partial[name].taps, partial[name].length) != (tuple(meta["taps"]), d):
                raise ValueError("out-of-distribution score: parts disagree")
        return cls(
            tuple(str(t) for t in meta["taps"]),
            tensors["mean"],
            tensors["scale"],
            tensors["whitening"],
            references,
            float(meta["threshold"]),
            float(meta["quantile"]),
            k,
            bool(meta["root"]),
            bool(meta["with_image"]),
            str(meta["method"]),
            partial,
        )
