"""Our probes for people who think in scikit-learn: arrays in, arrays out, nothing else.

    probe = FeatureProbe().fit(h, y, reference=unlabelled)
    probe.predict_proba(new)

`sklearn.base.clone`, `cross_val_score` and the like work; scikit-learn itself is not needed.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.probes.evidence import Evidence
from models.probes.probeset import PROBES, ProbeSet


class FeatureProbe:
    """One kind of probe, for one feature (y [n]) or for several at once (y [n, F]).

    kind: key in models.probes.probeset.PROBES. evidence: groups of units (taps, measurements), None
    for one group. seed: of the folds.

    After `fit`: classes_, n_features_in_, coef_ [F, D] and intercept_ [F] of the standardised
    units, threshold_ [F], the operating point on the calibrated probability (1: never found), and
    probes_, the ProbeSet itself.
    """

    _names: ClassVar[tuple[str, ...]] = ("kind", "evidence", "seed")

    def __init__(
        self, kind: str = "whitened", evidence: Evidence | None = None, seed: int = 0
    ) -> None:
        self.kind, self.evidence, self.seed = kind, evidence, seed

    def fit(self, X: NDArray[Any], y: NDArray[Any], reference: NDArray[Any] | None = None) -> Self:
        """X: [n, D], a lesion a row. y: 1 present, 0 absent, NaN not assessed. reference:
        unlabelled lesions [m, D] that give means and covariances, by default X itself.

        Raises InputError for an unknown kind, and as ProbeSet.fit.
        """
        if self.kind not in PROBES:
            raise InputError(
                "no such probe", field="kind", found=str(self.kind), expected=", ".join(PROBES)
            )
        rows, labels = np.asarray(X), np.asarray(y, dtype=np.float64)
        self._one = labels.ndim == 1
        table = labels[:, None] if self._one else labels
        names = [str(f) for f in range(table.shape[1])]
        self.probes_ = ProbeSet.fit(
            rows,
            table,
            rows if reference is None else reference,
            names,
            self.seed,
            evidence=self.evidence,
            only=(self.kind,),
        )
        probe = self.probes_.probes[self.kind]
        self.coef_, self.intercept_ = probe.weights, probe.bias
        self.threshold_ = self.probes_.thresholds
        self.classes_, self.n_features_in_ = np.array([0, 1]), rows.shape[1]
        return self

    def decision_function(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Scores, higher is more likely present: [k], or [k, F] for several features."""
        return self._shaped(self.probes_.scores(X)[self.kind])

    def predict_proba(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Calibrated. One feature: [k, 2], absent and present. Several: [k, F], present."""
        p = self.probes_.probabilities(X)
        return np.column_stack([1 - p[:, 0], p[:, 0]]) if self._one else p

    def predict(self, X: NDArray[Any]) -> NDArray[np.int64]:
        """1 where a feature is found at its operating point: [k], or [k, F]."""
        return self._shaped(self.probes_.found(X).astype(np.int64))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What the constructor took."""
        return {name: getattr(self, name) for name in self._names}

    def set_params(self, **params: Any) -> Self:
        for name, value in params.items():
            if name not in self._names:
                raise ValueError(f"no parameter {name}; there are {', '.join(self._names)}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn asks for these, so it is there.
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True, multi_output=True),
            classifier_tags=ClassifierTags(multi_class=False, multi_label=True),
            input_tags=InputTags(),
        )

    def _shaped(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[:, 0] if self._one else values
