"""All feature probes of a bundle: fitted in training, read by servers with numpy alone.

h [D] --standardise--> z --weights, bias--> scores of every probe [F]
                            --the deciding probe, its calibration--> probability [F] -> found
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.probes.calibration import Calibration, calibrate, squash
from models.probes.evidence import Evidence
from models.probes.gaussian import fit_gaussian
from models.probes.inputs import training_set
from models.probes.linear import Fit, LinearFit
from models.probes.logistic import fit_logistic
from models.probes.quality import detection_quality
from models.probes.shrinkage import covariance
from models.probes.whitened import fit_whitened
from wire.explanation import DetectionQuality

# The registry: a new linear probe is one file and one line here.
PROBES: dict[str, Fit] = {
    "gaussian": fit_gaussian,
    "logistic": fit_logistic,
    "whitened": fit_whitened,
}

FEW_SHOT = "whitened"  # the kind that stands for all where only one is fitted

HELD_OUT = "training, leave-one-lesion-out"


@dataclass(frozen=True)
class Probe:
    """One kind of probe for all features. All arrays float32; calibration as in `calibration`."""

    weights: NDArray[np.float32]  # [F, D], of standardised activations; zero at dead units
    bias: NDArray[np.float32]  # [F]
    slope: NDArray[np.float32]
    intercept: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    threshold: NDArray[np.float32]
    log_loss: NDArray[np.float32]  # [F], of held-out training lesions; NaN if there were none


_FIELDS = ("weights", "bias", "slope", "intercept", "low", "high", "threshold", "log_loss")


@dataclass(frozen=True)
class ProbeSet:
    """Probes, their calibration, which of them decides, and how well it does.

    features: ids, [F]. kinds: the deciding probe of each feature, [F]. quality: [F]. mean, scale:
    [D]. steps: [F, D], see `direction`. drawn: [B, F, D + 1], weights and bias of the deciding
    kind fitted to other draws of the labelled lesions; B is 0 where the kind has none.
    """

    features: list[str]
    kinds: list[str]
    quality: list[DetectionQuality]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    steps: NDArray[np.float32]
    probes: dict[str, Probe]
    drawn: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))

    @property
    def length(self) -> int:
        """D, the length of the vector that the probes read."""
        return len(self.mean)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """Operating points on the calibrated probability, [F]; 1 where a feature can't be found."""
        return self._deciding("threshold")

    def scores(self, h: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        """h [..., D] -> scores [..., F] by probe: nats ('gaussian') or log-odds ('logistic')."""
        z = self._standardise(h)
        return {
            kind: z @ probe.weights.astype(np.float64).T + probe.bias.astype(np.float64)
            for kind, probe in self.probes.items()
        }

    def probabilities(self, h: NDArray[Any]) -> NDArray[np.float64]:
        """h [..., D] -> calibrated probability of each feature by its deciding probe, [..., F]."""
        every = self.scores(h)
        scores = np.empty((*np.shape(h)[:-1], len(self.kinds)))  # no feature at all is legal
        for f, kind in enumerate(self.kinds):
            scores[..., f] = every[kind][..., f]
        return squash(scores, *(self._deciding(k) for k in ("slope", "intercept", "low", "high")))

    def found(self, h: NDArray[Any]) -> NDArray[np.bool_]:
        """h [..., D] -> is the probability at or above the feature's operating point? [..., F]"""
        return self.probabilities(h) >= self.thresholds

    def label_spread(self, h: NDArray[Any]) -> NDArray[np.float64]:
        """h [..., D] -> standard deviation of the calibrated log-odds over draws of the labelled
        lesions, [..., F]: how much hangs on which lesions were labelled. NaN where unknown."""
        z = self._standardise(h)
        if len(self.drawn) < 2:
            return np.full((*z.shape[:-1], len(self.kinds)), np.nan)
        drawn = self.drawn.astype(np.float64)
        scores = np.einsum("...d,bfd->b...f", z, drawn[:, :, :-1])
        offset = drawn[:, :, -1].reshape(len(drawn), *(1,) * (z.ndim - 1), -1)
        spread: NDArray[np.float64] = (scores + offset).std(axis=0, ddof=1)
        return spread * np.abs(self._deciding("slope"))

    def direction(self, i: int) -> NDArray[np.float32]:
        """The step from 'absent' to 'present' of feature i in activation space, [D].

        The *pattern* of the deciding probe, cov(h) w / var(w'h) (Haufe et al. 2014, doi
        10.1016/j.neuroimage.2013.10.067), not its weights: weights also cancel noise, the pattern
        is how activations move with the score. Scaled so that w'step is the mean difference of
        held-out scores between present and absent labelled lesions; zero where that is not
        positive, since a feature that can't be seen has no step. cov(h) is the shrunk covariance of
        the reference, so the Gaussian's pattern is, up to scale, the difference of means.
        """
        return self.steps[i]

    def measured(
        self,
        h: NDArray[Any],
        labels: NDArray[Any],
        split: str,
        *,
        classes: NDArray[Any] | None = None,
        draws: int = 500,
        seed: int = 0,
    ) -> ProbeSet:
        """The same probes with `quality` measured on other lesions: h [k, D], labels [k, F].

        classes: of the lesions [k], for what the probes see within a class.
        """
        p, y = self.probabilities(h), np.asarray(labels, dtype=np.float64)
        found = p >= self.thresholds
        quality = detection_quality(p, found, y, classes, split, draws=draws, seed=seed)
        return replace(self, quality=quality)

    @classmethod
    def fit(
        cls,
        h: NDArray[Any],
        labels: NDArray[Any],
        reference: NDArray[Any],
        features: Sequence[str],
        seed: int,
        *,
        evidence: Evidence | None = None,
        only: Sequence[str] | None = None,
        validation: tuple[NDArray[Any], NDArray[Any]] | None = None,
    ) -> ProbeSet:
        """Fit every probe of the registry to labelled lesions.

        h: [n, D], one row a lesion, averaged over passes, joined as `evidence` says (none: one
        group of units). labels: [n, F]: 1 present, 0 absent, NaN not assessed. reference: [m, D],
        unlabelled training lesions; a row of h that is also there is left out with its lesion.
        only: kinds to fit, by default all. validation: (h, labels) of other lesions: then the kind
        with the lowest log-loss *there*, over all features, decides; else the one with the lowest
        held-out log-loss.

        The order of lesions does not matter, and equal rows of h are one lesion (labels that
        contradict each other count as not assessed). Units without variance are dropped. Raises
        InputError where shapes disagree or a number is not finite.
        """
        data, standard = training_set(h, labels, reference, features, seed, evidence)
        mean, scale, live, y = standard.mean, standard.scale, standard.live, data.labels
        fits = {kind: PROBES[kind](data) for kind in only or PROBES}
        calibrations = {
            kind: [calibrate(fit.held_out[:, f], y[:, f]) for f in range(len(features))]
            for kind, fit in fits.items()
        }
        probes = {kind: _probe(fits[kind], calibrations[kind], live) for kind in fits}
        losses = {kind: probe.log_loss.astype(np.float64) for kind, probe in probes.items()}
        kinds = [_lowest(losses)] * len(features)
        steps = np.zeros((len(features), len(mean)), dtype=np.float32)
        fitted = cls(
            list(features), kinds, [], mean.astype(np.float32), scale.astype(np.float32),
            steps, probes,
        )  # fmt: skip
        if validation is not None:
            fitted = fitted._decide(*validation)
        p = np.full(y.shape, np.nan)
        for f, kind in enumerate(fitted.kinds):
            p[:, f] = calibrations[kind][f].probability(fits[kind].held_out[:, f])
        fitted = replace(
            fitted,
            quality=detection_quality(
                p, p >= fitted.thresholds, y, None, HELD_OUT, draws=500, seed=seed
            ),
        )
        centre = data.reference.mean(axis=0) if len(data.reference) else 0.0
        cov = covariance(data.reference - centre)
        for f, kind in enumerate(fitted.kinds):
            steps[f, live] = _step(fits[kind], f, y[:, f], cov) * scale[live]
        return replace(fitted, drawn=_drawn(fits[fitted.kinds[0]], live)) if features else fitted

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta). `from_parts` gives exactly equal scores back."""
        tensors: dict[str, NDArray[Any]] = {
            "mean": self.mean, "scale": self.scale, "steps": self.steps
        }  # fmt: skip
        if len(self.drawn):
            tensors["drawn"] = self.drawn
        for kind, probe in self.probes.items():
            tensors |= {f"{kind}/{field}": getattr(probe, field) for field in _FIELDS}
        meta = {
            "features": self.features,
            "kinds": self.kinds,
            "probes": list(self.probes),
            "quality": [q.model_dump(mode="json") for q in self.quality],
        }
        return tensors, meta

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> ProbeSet:
        """Raises KeyError or ValueError where something is missing or shapes disagree."""
        probes = {
            kind: Probe(**{field: tensors[f"{kind}/{field}"] for field in _FIELDS})
            for kind in meta["probes"]
        }
        features, kinds = list(meta["features"]), list(meta["kinds"])
        shape = (len(features), len(tensors["mean"]))
        shapes = {p.weights.shape for p in probes.values()} | {tensors["steps"].shape}
        counts = {len(getattr(p, f)) for p in probes.values() for f in _FIELDS}
        if shapes != {shape} or counts != {shape[0]} or tensors["scale"].shape != shape[1:]:
            raise ValueError("probes: shapes disagree")
        if len(kinds) != shape[0] or not set(kinds) <= set(probes):
            raise ValueError("probes: kinds do not match the probes")
        drawn = tensors.get("drawn", np.zeros((0, shape[0], shape[1] + 1), np.float32))
        if drawn.shape[1:] != (shape[0], shape[1] + 1):
            raise ValueError("probes: shapes disagree")
        return cls(
            features=features,
            kinds=kinds,
            quality=[DetectionQuality.model_validate(q) for q in meta["quality"]],
            mean=tensors["mean"],
            scale=tensors["scale"],
            steps=tensors["steps"],
            probes=probes,
            drawn=drawn,
        )

    def _standardise(self, h: NDArray[Any]) -> NDArray[np.float64]:
        return (np.asarray(h, dtype=np.float64) - self.mean) / self.scale.astype(np.float64)

    def _deciding(self, field: str) -> NDArray[np.float64]:
        values = [getattr(self.probes[kind], field)[f] for f, kind in enumerate(self.kinds)]
        return np.array(values, dtype=np.float64)

    def _decide(self, h: NDArray[Any], labels: NDArray[Any]) -> ProbeSet:
        """The kind with the lower log-loss on these lesions decides; too few: no change."""
        y = np.asarray(labels, dtype=np.float64)
        enough = np.minimum((y == 1).sum(axis=0), (y == 0).sum(axis=0)) >= 2
        losses = {}
        for kind in self.probes:
            p = replace(self, kinds=[kind] * len(self.kinds)).probabilities(h)
            each = np.where(y == 1, -np.log(p), np.where(y == 0, -np.log1p(-p), 0.0))
            known = np.isfinite(y).sum(axis=0)
            losses[kind] = np.where(enough, each.sum(axis=0) / np.maximum(known, 1), np.nan)
        if not enough.any():
            return self
        return replace(self, kinds=[_lowest(losses)] * len(self.kinds))


def _probe(fit: LinearFit, calibrations: list[Calibration], live: NDArray[np.bool_]) -> Probe:
    weights = np.zeros((len(fit.bias), len(live)), dtype=np.float32)
    weights[:, live] = fit.weights
    columns = {
        field: np.array([getattr(c, field) for c in calibrations], dtype=np.float32)
        for field in ("slope", "intercept", "low", "high", "threshold", "log_loss")
    }
    return Probe(weights=weights, bias=fit.bias.astype(np.float32), **columns)


def _drawn(fit: LinearFit, live: NDArray[np.bool_]) -> NDArray[np.float32]:
    """LinearFit.drawn over all units, [B, F, D + 1]."""
    drawn = np.zeros((*fit.drawn.shape[:2], len(live) + 1), dtype=np.float32)
    drawn[:, :, np.append(live, True)] = fit.drawn
    return drawn


def _step(
    fit: LinearFit, f: int, y: NDArray[np.float64], cov: NDArray[np.float64]
) -> NDArray[np.float64]:
    held_out, w = fit.held_out[:, f], fit.weights[f]
    known = np.isfinite(held_out)
    present, absent = held_out[known & (y == 1)], held_out[known & (y == 0)]
    pattern = cov @ w
    variance = float(w @ pattern)
    if min(len(present), len(absent)) == 0 or variance <= 0:
        return np.zeros_like(w)
    return pattern / variance * max(float(present.mean() - absent.mean()), 0.0)


def _lowest(losses: Mapping[str, NDArray[np.float64]]) -> str:
    """The kind with the lowest mean over features of a loss; NaN (not measured) is worst.

    One kind for all features: a choice a feature would follow the noise of a few lesions.
    """
    table = np.stack(list(losses.values())) if losses else np.zeros((0, 0))
    defined = np.isfinite(table).any(axis=0)
    worst = np.where(np.isfinite(table), table, np.inf)[:, defined]
    means = worst.mean(axis=1) if worst.size else np.zeros(len(table))
    return list(losses)[int(np.argmin(means))]
