"""What do a lesion's features say of its class, whoever found them?

P(feature | class) is learned from training labels; features count as independent given the class.
Trees of dependence (Chow & Liu 1968, doi 10.1109/TIT.1968.1054142) and kernels on whole patterns
of features (Aitchison & Aitken 1976, doi 10.1093/biomet/63.3.413) were tried: at 125 labelled
lesions the first loses 0.01 to 0.15 nats a lesion, the second gains nothing beyond noise.

Evidence is one number a feature, the log likelihood ratio of what was seen between 'present' and
'absent' (Pearl's virtual evidence, 1988): 0 says nothing. Probes, a reader's ticks and a report
differ only in how it is made, so one function judges all three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

Array = NDArray[np.float64]

IMAGINED = 10.0  # lesions a class that behave like all classes together, beside those labelled
READER_ERROR = 0.15  # of a reader's or a report's statements, where nobody has measured it
_LEAST = 0.01  # no probability of a probe, no error of a reader lies beyond it


@dataclass(frozen=True)
class FeatureModel:
    """given: P(feature present | class) [C, F]. base: P(feature present) where labels come from
    [F]. Both float32, strictly inside (0, 1).
    """

    classes: tuple[str, ...]
    features: tuple[str, ...]
    given: NDArray[np.float32]
    base: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        labels: NDArray[Any],
        classes: NDArray[Any],
        class_ids: Sequence[str],
        feature_ids: Sequence[str],
    ) -> FeatureModel:
        """labels: [n, F], 1 present, 0 absent, NaN not assessed. classes: index [n].

        Each class is shrunk towards all classes by IMAGINED lesions, so that a class without
        lesions is like the average; a feature that nobody assessed says nothing. Raises InputError
        where shapes disagree.
        """
        y, c = np.asarray(labels, dtype=np.float64), np.asarray(classes, dtype=np.int64)
        if y.ndim != 2 or y.shape != (len(c), len(feature_ids)):
            raise InputError(
                "labels do not fit the lesions and features", code="wrong_shape", field="labels",
                found=str(list(y.shape)), expected=f"[{len(c)}, {len(feature_ids)}]",
            )  # fmt: skip
        base = (np.nansum(y, axis=0) + 1) / (np.isfinite(y).sum(axis=0) + 2)
        given = np.empty((len(class_ids), len(feature_ids)))
        for k in range(len(class_ids)):
            rows = y[c == k]
            count = np.isfinite(rows).sum(axis=0)
            given[k] = (np.nansum(rows, axis=0) + IMAGINED * base) / (count + IMAGINED)
        return cls(
            tuple(class_ids), tuple(feature_ids), given.astype(np.float32), base.astype(np.float32)
        )

    def from_probes(self, probabilities: NDArray[Any]) -> Array:
        """Evidence of calibrated probabilities [..., F]: what they add to how common a feature is
        among the labelled lesions. NaN (not assessable) says nothing."""
        p = np.clip(np.asarray(probabilities, dtype=np.float64), _LEAST, 1 - _LEAST)
        return np.nan_to_num(_logit(p) - _logit(self.base.astype(np.float64)), nan=0.0)

    def from_statuses(self, statuses: NDArray[Any], error: float = READER_ERROR) -> Array:
        """Evidence of 1 (present), 0 (absent) and NaN (not mentioned) [..., F].

        error: share of such statements that are wrong. Raises InputError for another number.
        """
        y = np.asarray(statuses, dtype=np.float64)
        if not np.isin(y[np.isfinite(y)], (0.0, 1.0)).all() or np.isinf(y).any():
            raise InputError("statuses are 1, 0 or NaN", code="wrong_label", field="features")
        e = float(np.clip(error, _LEAST, 0.5))
        return np.nan_to_num(2 * y - 1, nan=0.0) * float(_logit(1 - e))

    def log_likelihood(self, evidence: NDArray[Any]) -> Array:
        """log P(evidence | class) [..., C], up to what all classes share."""
        e = np.asarray(evidence, dtype=np.float64)[..., None, :]
        g = self.given.astype(np.float64)
        return np.asarray(np.logaddexp(np.log(g) + e, np.log1p(-g)).sum(axis=-1))

    def posterior(self, evidence: NDArray[Any]) -> Array:
        """P(class | evidence) [..., C], every class as likely beforehand."""
        z = self.log_likelihood(evidence)
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))

    def expected_missing(self, found: NDArray[Any], class_index: int) -> list[str]:
        """Features that most lesions of the class show and that are absent here, likeliest first.

        found: 1 present, 0 absent, NaN unknown [F].
        """
        p, y = self.given[class_index], np.asarray(found, dtype=np.float64)
        order = np.argsort(-p, kind="stable")
        return [self.features[f] for f in order if p[f] > 0.5 and y[f] == 0]

    def speaks_for(self, evidence: NDArray[Any], class_index: int) -> dict[str, tuple[str, float]]:
        """Features that count against the class: id -> (class it speaks for most, nats by which).

        evidence: [F]. Most telling first; less than half a nat is left out.
        """
        e, g = np.asarray(evidence, dtype=np.float64), self.given.astype(np.float64)
        each = np.logaddexp(np.log(g) + e, np.log1p(-g))
        gain = each - each[class_index]
        best = gain.argmax(axis=0)
        most = gain[best, np.arange(len(e))]
        order = np.argsort(-most, kind="stable")
        return {
            self.features[f]: (self.classes[int(best[f])], float(most[f]))
            for f in order
            if most[f] >= 0.5
        }

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta)."""
        meta = {"classes": list(self.classes), "features": list(self.features)}
        return {"given": self.given, "base": self.base}, meta

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]
    ) -> FeatureModel:
        """Raises KeyError or ValueError where something is missing or out of range."""
        model = cls(
            tuple(meta["classes"]), tuple(meta["features"]), tensors["given"], tensors["base"]
        )
        shape = (len(model.classes), len(model.features))
        values = np.concatenate([model.given.ravel(), model.base.ravel()])
        if model.given.shape != shape or model.base.shape != shape[1:]:
            raise ValueError("feature model: shapes disagree")
        if not ((values > 0) & (values < 1)).all():
            raise ValueError("feature model: a probability lies outside of (0, 1)")
        return model


def _logit(p: Any) -> Any:
    return np.log(p) - np.log1p(-p)
