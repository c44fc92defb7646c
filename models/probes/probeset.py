"""All feature probes of a bundle: fitted in training, read by servers with numpy alone.

h [D] --standardise--> z --weights, bias--> scores of every probe [F]
                            --the deciding probe, its calibration--> probability [F] -> found
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.evaluation.ranking import auroc, auroc_interval
from models.probes.calibration import Calibration, calibrate, squash
from models.probes.gaussian import fit_gaussian
from models.probes.linear import Fit, LinearFit, TrainingSet
from models.probes.logistic import fit_logistic
from models.probes.shrinkage import covariance
from wire.explanation import DetectionQuality

# The registry: a new linear probe is one file and one line here.
PROBES: dict[str, Fit] = {"gaussian": fit_gaussian, "logistic": fit_logistic}

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
    [D]. steps: [F, D], see `direction`.
    """

    features: list[str]
    kinds: list[str]
    quality: list[DetectionQuality]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    steps: NDArray[np.float32]
    probes: dict[str, Probe]

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
        self, h: NDArray[Any], labels: NDArray[Any], split: str, *, draws: int = 500, seed: int = 0
    ) -> ProbeSet:
        """The same probes with `quality` measured on other lesions: h [k, D], labels [k, F]."""
        p, y = self.probabilities(h), np.asarray(labels, dtype=np.float64)
        quality = [_quality(p[:, f], y[:, f], split, draws, seed) for f in range(len(self.kinds))]
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
        validation: tuple[NDArray[Any], NDArray[Any]] | None = None,
    ) -> ProbeSet:
        """Fit every probe of the registry to labelled lesions.

        h: [n, D], one row a lesion, averaged over passes. labels: [n, F]: 1 present, 0 absent, NaN
        not assessed. reference: [m, D], unlabelled training lesions; a row of h that is also there
        is left out with its lesion. validation: (h, labels) of other lesions: then the probe with
        the lower log-loss *there* decides a feature, else the one with the lower held-out log-loss.

        The order of lesions does not matter, and equal rows of h are one lesion (labels that
        contradict each other count as not assessed). Units without variance are dropped. Raises
        InputError where shapes disagree or a number is not finite.
        """
        rows, y, marginal = _inputs(h, labels, reference, features)
        mean, scale, live = _standard(marginal)
        data = TrainingSet(
            z=(rows[:, live] - mean[live]) / scale[live],
            labels=y,
            reference=(marginal[:, live] - mean[live]) / scale[live],
            twin=_twins(rows, marginal),
            seed=seed,
        )
        fits = {kind: fit(data) for kind, fit in PROBES.items()}
        calibrations = {
            kind: [calibrate(fit.held_out[:, f], y[:, f]) for f in range(len(features))]
            for kind, fit in fits.items()
        }
        probes = {kind: _probe(fits[kind], calibrations[kind], live) for kind in PROBES}
        kinds = [
            min(PROBES, key=lambda kind, f=f: _nan_last(float(probes[kind].log_loss[f])))  # type: ignore[misc]
            for f in range(len(features))
        ]
        quality = [
            _quality(fits[kind].held_out[:, f], y[:, f], HELD_OUT, 500, seed)
            for f, kind in enumerate(kinds)
        ]
        steps = np.zeros((len(features), len(mean)), dtype=np.float32)
        fitted = cls(
            list(features), kinds, quality, mean.astype(np.float32), scale.astype(np.float32),
            steps, probes,
        )  # fmt: skip
        if validation is not None:
            fitted = fitted._decide(*validation)
        centre = data.reference.mean(axis=0) if len(data.reference) else 0.0
        cov = covariance(data.reference - centre)
        for f, kind in enumerate(fitted.kinds):
            steps[f, live] = _step(fits[kind], f, y[:, f], cov) * scale[live]
        return fitted

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta). `from_parts` gives exactly equal scores back."""
        tensors: dict[str, NDArray[Any]] = {
            "mean": self.mean, "scale": self.scale, "steps": self.steps
        }  # fmt: skip
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
        return cls(
            features=features,
            kinds=kinds,
            quality=[DetectionQuality.model_validate(q) for q in meta["quality"]],
            mean=tensors["mean"],
            scale=tensors["scale"],
            steps=tensors["steps"],
            probes=probes,
        )

    def _standardise(self, h: NDArray[Any]) -> NDArray[np.float64]:
        return (np.asarray(h, dtype=np.float64) - self.mean) / self.scale.astype(np.float64)

    def _deciding(self, field: str) -> NDArray[np.float64]:
        values = [getattr(self.probes[kind], field)[f] for f, kind in enumerate(self.kinds)]
        return np.array(values, dtype=np.float64)

    def _decide(self, h: NDArray[Any], labels: NDArray[Any]) -> ProbeSet:
        """The probe with the lower log-loss on these lesions decides; too few: no change."""
        y = np.asarray(labels, dtype=np.float64)
        losses = {}
        for kind in self.probes:
            p = replace(self, kinds=[kind] * len(self.kinds)).probabilities(h)
            losses[kind] = np.where(y == 1, -np.log(p), -np.log1p(-p))
        kinds = list(self.kinds)
        for f in range(len(kinds)):
            known = np.isfinite(y[:, f])
            if min((y[known, f] == 1).sum(), (y[known, f] == 0).sum()) >= 2:
                kinds[f] = min(losses, key=lambda k, f=f, known=known: losses[k][known, f].mean())  # type: ignore[misc]
        return replace(self, kinds=kinds)


def _inputs(
    h: NDArray[Any], labels: NDArray[Any], reference: NDArray[Any], features: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Check, merge equal rows, and bring lesions into one order."""
    rows, y = np.asarray(h, dtype=np.float32), np.asarray(labels, dtype=np.float64)
    marginal = np.asarray(reference, dtype=np.float32)
    if rows.ndim != 2 or y.shape != (len(rows), len(features)):
        raise InputError(
            "labels do not fit the lesions and features", code="wrong_shape", field="labels",
            found=str(list(y.shape)), expected=f"[{len(rows)}, {len(features)}]",
        )  # fmt: skip
    if marginal.ndim != 2 or marginal.shape[1] != rows.shape[1]:
        raise InputError(
            "the reference has another length than the lesions", code="wrong_shape",
            field="reference", found=str(list(marginal.shape)), expected=f"[m, {rows.shape[1]}]",
        )  # fmt: skip
    for field, values in (("h", rows), ("reference", marginal)):
        if not np.isfinite(values).all():
            raise InputError("holds NaN or infinity", code="not_finite", field=field)
    if not np.isin(y[np.isfinite(y)], (0.0, 1.0)).all() or np.isinf(y).any():
        raise InputError("labels are 1, 0 or NaN", code="wrong_label", field="labels")
    unique, back = np.unique(rows, axis=0, return_inverse=True)
    merged = np.full((len(unique), len(features)), np.nan)
    for lesion, given in zip(back.reshape(-1), y, strict=True):
        known = np.isfinite(given)
        clash = known & np.isfinite(merged[lesion]) & (merged[lesion] != given)
        merged[lesion] = np.where(known, given, merged[lesion])
        merged[lesion, clash] = np.nan
    if len(marginal) < 2:
        marginal = unique
    marginal = marginal[np.lexsort(marginal.T[::-1])] if len(marginal) else marginal
    return unique.astype(np.float64), merged, marginal.astype(np.float64)


def _standard(
    marginal: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Mean and scale [D] as float32 values, and which units are alive."""
    if len(marginal) == 0:
        d = marginal.shape[1]
        return np.zeros(d), np.ones(d), np.zeros(d, dtype=bool)
    mean, deviation = marginal.mean(axis=0), marginal.std(axis=0)
    live = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scale = np.where(live, deviation, 1.0)
    return mean.astype(np.float32).astype(float), scale.astype(np.float32).astype(float), live


def _twins(rows: NDArray[np.float64], marginal: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each labelled lesion its row in the reference, or -1."""
    where = {row.tobytes(): i for i, row in enumerate(marginal)}
    return np.array([where.get(row.tobytes(), -1) for row in rows], dtype=np.int64)


def _probe(fit: LinearFit, calibrations: list[Calibration], live: NDArray[np.bool_]) -> Probe:
    weights = np.zeros((len(fit.bias), len(live)), dtype=np.float32)
    weights[:, live] = fit.weights
    columns = {
        field: np.array([getattr(c, field) for c in calibrations], dtype=np.float32)
        for field in ("slope", "intercept", "low", "high", "threshold", "log_loss")
    }
    return Probe(weights=weights, bias=fit.bias.astype(np.float32), **columns)


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


def _quality(
    scores: NDArray[np.float64], labels: NDArray[np.float64], split: str, draws: int, seed: int
) -> DetectionQuality:
    known = np.isfinite(scores) & np.isfinite(labels)
    s, y = scores[known], labels[known] == 1
    value = auroc(s, y)
    ci = auroc_interval(s, y, draws=draws, seed=seed)
    return DetectionQuality(
        auroc=round(value, 6) if np.isfinite(value) else None,
        ci=None if ci is None else (round(ci[0], 6), round(ci[1], 6)),
        n_present=int(y.sum()),
        n_absent=int((~y).sum()),
        split=split,
    )


def _nan_last(value: float) -> float:
    return value if np.isfinite(value) else np.inf
