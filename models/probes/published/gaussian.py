"""Wang et al. 2019, part II: a Gaussian for p(h | f), a Gaussian for p(h), and their ratio.

    s_f(x) = log mean over passes of p(h_pass | f) / p(h_pass)                       in nats

As in the authors' code, every stochastic pass counts as an independent sample: ten lesions in 100
passes are 1,000 rows, each Gaussian has a full covariance of its own (divisor n - 1), eigenvalues
below 1e6 machine epsilons of the largest are left out together with their dimension, and the prior
is the same for all features. Nothing holds the two covariances together, so that an unseen lesion
is hundreds of nats away from each of them; that is the published method, not a mistake of ours.

The paper puts the test lesions into the marginal as well; here the caller chooses its rows, and
all of ours are training lesions. The paper takes 100 passes of a lesion with labels and of a test
lesion, 20 of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.probes.published.marginal import conditional, log_mean_exp

LESIONS_AT_ONCE = 64  # keeps the whitened activations of all features within some 100 MB


@dataclass(frozen=True)
class Gaussian:
    """mean: [D]. whitening: [D, D], zero columns for left-out dimensions. offset: the logarithm of
    the normalisation, over the dimensions that are kept.
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    offset: float

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> Gaussian:
        """Maximum likelihood (divisor n - 1) of rows [n, D], n >= 1; one row has no spread."""
        mean = rows.mean(axis=0)
        centred = rows - mean
        values, basis = np.linalg.eigh(centred.T @ centred / max(len(rows) - 1, 1))
        # The rule of scipy.stats.multivariate_normal(allow_singular=True), which they call.
        keep = values > 1e6 * np.finfo(np.float64).eps * np.abs(values).max()
        scale = np.zeros_like(values)
        scale[keep] = values[keep] ** -0.5
        log_det = float(np.log(values[keep]).sum())
        return cls(mean, basis * scale, -0.5 * (int(keep.sum()) * np.log(2 * np.pi) + log_det))


class Wang2019Gaussian:
    """The published Gaussian ratio. After `fit`: features_, the number of features."""

    def fit(
        self, passes: NDArray[Any], labels: NDArray[Any], marginal: NDArray[Any]
    ) -> Wang2019Gaussian:
        """passes: labelled lesions [n, T, D]. labels: [n, F], 1 present. marginal: rows [m, D]."""
        rows = np.asarray(marginal, dtype=np.float64)
        if rows.ndim != 2 or len(rows) == 0:
            raise InputError(
                "the marginal has no rows", field="marginal", found=str(rows.shape),
                expected="[m, D], m >= 1",
            )  # fmt: skip
        groups = conditional(passes, labels)
        self.features_ = len(groups)
        self._known = [f for f, group in enumerate(groups) if len(group)]
        every = [Gaussian.of(rows), *(Gaussian.of(groups[f]) for f in self._known)]
        # Side by side, so that one product serves every feature.
        self._whitening = np.concatenate([g.whitening for g in every], axis=1)
        self._shift = np.concatenate([g.mean @ g.whitening for g in every])
        self._offset = np.array([g.offset for g in every])
        return self

    def decision_function(self, passes: NDArray[Any]) -> NDArray[np.float64]:
        """Lesions [k, T, D] -> log ratios [k, F] in nats; -inf for a feature nobody showed."""
        h = np.asarray(passes, dtype=np.float64)
        scores = np.full((len(h), self.features_), -np.inf)
        for start in range(0, len(h), LESIONS_AT_ONCE):
            part = h[start : start + LESIONS_AT_ONCE]
            k, t, d = part.shape
            white = part.reshape(-1, d) @ self._whitening - self._shift
            density = self._offset - 0.5 * np.einsum(
                "rgd,rgd->rg", *(2 * [white.reshape(k * t, len(self._offset), d)])
            )
            ratio = (density[:, 1:] - density[:, :1]).reshape(k, t, len(self._known))
            scores[start : start + k, self._known] = log_mean_exp(ratio.transpose(0, 2, 1))
        return scores

    def predict_proba(self, passes: NDArray[Any]) -> NDArray[np.float64]:
        """p(h|f) / (p(h|f) + p(h)), [k, F]. The paper ranks log ratios and gives no probability."""
        return even_odds(self.decision_function(passes))


def even_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(s) / (1 + exp(s)): feature and 'any lesion' equally likely beforehand."""
    return np.asarray(1 / (1 + np.exp(-np.clip(scores, -700, 700))), dtype=np.float64)
