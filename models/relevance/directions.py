"""Where would the activations be without the feature? Learned from examples with and without it.

A pair is one lesion twice, with a feature and without it, all else equal: switched off in a
rendering, or edited out of an image. Their difference is free of what goes along with the feature
in a cohort (its class, above all), which no probe's direction is. Two forms:

    moves[f]          the mean difference at the target tap: one direction a feature
    displacement(h)   the difference expected for *this* lesion: ridge regression of the differences
                      on the lesion's own activations, of every tap, with the feature

The target is the network's last tap. What lies behind it is linear in the networks made here, so a
gradient there times a displacement is the change of the logit, exactly; for others it is its first
order. A displaced activation never falls below zero where the tap is rectified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.relevance.ridge import Ridge, choose

Array = NDArray[np.float64]
Activations = Mapping[str, NDArray[Any]]

ORIGINS = ("rendering", "edit")
# Leave-one-out residuals promise 1 - 2 alpha without any assumption (Barber et al. 2021, doi
# 10.1214/20-AOS1965), so a 95 % interval asks for their 97.5 % quantile.
_QUANTILE = 0.975
_FEWEST = 39  # residuals behind that quantile
_OWN = 5  # pairs of a feature for a spread of its own

_TENSORS = (
    "centre",
    "gain",
    "moves",
    "offsets",
    "feature",
    "support",
    "coefficients",
    "residuals",
)


@dataclass(frozen=True)
class Directions:
    """F features; k pairs; D units of all taps that are read, T of the target. Arrays float32.

    features: ids. taps, widths: what is read, in order. target: the tap that is moved. origin: of
    the pairs, 'rendering' or 'edit'. rectified: the target is never negative. centre, gain [D]:
    of roots of activations: less the centre, times the gain (0 for a dead unit). moves [F, T]: mean
    difference. feature [k]: of each pair, index. offsets [F, T], support [k, D], coefficients
    [k, T]: the regression in dual form. residuals [k, T]: of each pair by the fit without it.
    """

    features: tuple[str, ...]
    taps: tuple[str, ...]
    widths: tuple[int, ...]
    target: str
    origin: str
    penalty: float
    rectified: bool
    centre: NDArray[np.float32]
    gain: NDArray[np.float32]
    moves: NDArray[np.float32]
    offsets: NDArray[np.float32]
    feature: NDArray[np.int32]
    support: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    residuals: NDArray[np.float32]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pairs of each feature, [F]. Without any, a feature cannot be taken away."""
        return np.bincount(self.feature, minlength=len(self.features)).astype(np.int64)

    @classmethod
    def fit(
        cls,
        features: Sequence[str],
        reference: Activations,
        present: Activations,
        absent: Activations,
        feature: NDArray[Any],
        *,
        origin: str,
    ) -> Directions:
        """Fit to k pairs.

        reference: tap -> [m, D_tap], plain views of training lesions, m >= 1; every tap in network
        order, the last one is the target. present, absent: the same of each pair with and without
        its feature [k, D_tap]; of `absent` the target alone is read. feature: index in `features`,
        [k]. The order of pairs does not matter. Raises InputError where shapes disagree, a number
        is not finite, or the origin is unknown.
        """
        taps = tuple(reference)
        target = taps[-1]
        with_, marginal = _roots(present, taps), _roots(reference, taps)
        here, gone = (np.asarray(v[target], np.float64) for v in (present, absent))
        which = np.asarray(feature, dtype=np.int64)
        _check(len(features), which, with_, here, gone, marginal, origin)
        order = np.lexsort((*with_.T[::-1], which))
        with_, moved, which = with_[order], (here - gone)[order], which[order]
        widths = tuple(int(np.shape(reference[t])[1]) for t in taps)
        centre, gain = _standard(marginal, widths)
        z = (with_ - centre) * gain
        rows = [np.flatnonzero(which == f) for f in range(len(features))]
        ridges = [Ridge.of(z[r], moved[r]) for r in rows if len(r)]
        penalty = choose(ridges)
        moves = np.zeros((len(features), moved.shape[1]))
        offsets, residuals = moves.copy(), moved.copy()
        support, coefficients = np.zeros_like(z), np.zeros_like(moved)
        for r, ridge in zip([r for r in rows if len(r)], ridges, strict=True):
            f = which[r[0]]
            support[r] = z[r] - ridge.mean
            coefficients[r] = ridge.coefficients(penalty)
            residuals[r] = ridge.left_out(penalty)
            moves[f] = ridge.target_mean
            # The lesion's own row is not taken off the mean when it is read: done here, once.
            offsets[f] = ridge.target_mean - ridge.mean @ support[r].T @ coefficients[r]
        return cls(
            features=tuple(features),
            taps=taps,
            widths=widths,
            target=target,
            origin=origin,
            penalty=penalty,
            rectified=bool(min(np.min(reference[target]), gone.min(initial=0.0)) >= 0),
            centre=centre.astype(np.float32),
            gain=gain.astype(np.float32),
            moves=moves.astype(np.float32),
            offsets=offsets.astype(np.float32),
            feature=which.astype(np.int32),
            support=support.astype(np.float32),
            coefficients=coefficients.astype(np.float32),
            residuals=residuals.astype(np.float32),
        )

    def displacement(self, activations: Activations) -> Array:
        """Expected difference that each feature makes at the target, [n, F, T].

        activations: tap -> [n, D_tap], plain views of lesions *with* the features; for a lesion
        without one the answer means nothing. Zero for a feature without pairs.
        """
        z = (_roots(activations, self.taps) - self.centre) * self.gain.astype(np.float64)
        out = np.repeat(self.offsets[None].astype(np.float64), len(z), axis=0)
        for f in np.flatnonzero(self.counts):
            r = self.feature == f
            out[:, f] += (z @ self.support[r].T.astype(np.float64)) @ self.coefficients[r]
        return out

    def without(self, here: NDArray[Any], displacement: NDArray[Any]) -> Array:
        """The target's activations with displacements taken off: [..., T] both, broadcast."""
        gone = np.asarray(here, dtype=np.float64) - displacement
        return np.maximum(gone, 0.0) if self.rectified else gone

    def half_width(self, slopes: NDArray[Any]) -> Array:
        """Half of a 95 % interval of the change of a logit, [F, ...]; NaN where pairs are too few.

        slopes: [..., T], gradient of the logit at the target. Conformal, from leave-one-out
        residuals: the change that the removal of the pairs' origin makes lies within, in 95 of 100
        lesions like theirs. A feature has its own spread (root mean square of its residuals; that
        of all below five pairs) and shares the shape of the tail with all, since a few dozen pairs
        cannot tell it.
        """
        errors = np.abs(np.asarray(slopes, np.float64) @ self.residuals.T.astype(np.float64))
        out = np.full((len(self.features), *errors.shape[:-1]), np.nan)
        n = errors.shape[-1]
        if n < _FEWEST:
            return out
        spread = np.empty_like(out)
        for f, count in enumerate(self.counts):
            mine = errors[..., self.feature == f] if count >= _OWN else errors
            spread[f] = np.sqrt((mine**2).mean(axis=-1))
        own = np.moveaxis(spread[self.feature], 0, -1)
        tail = np.divide(errors, own, out=np.zeros_like(errors), where=own > 0)
        rank = min(int(np.ceil((n + 1) * _QUANTILE)), n)
        known = self.counts > 0
        out[known] = (spread * np.sort(tail, axis=-1)[..., rank - 1])[known]
        return out

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta). `from_parts` gives exactly equal answers back."""
        meta = {
            "features": list(self.features),
            "taps": list(self.taps),
            "widths": list(self.widths),
            "target": self.target,
            "origin": self.origin,
            "penalty": self.penalty,
            "rectified": self.rectified,
            "pairs": [int(n) for n in self.counts],
        }
        return {name: getattr(self, name) for name in _TENSORS}, meta

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Directions:
        """Raises KeyError or ValueError where something is missing or shapes disagree."""
        features, widths = tuple(meta["features"]), tuple(int(w) for w in meta["widths"])
        arrays: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
        k, d, t = len(arrays["feature"]), sum(widths), arrays["moves"].shape[-1]
        shapes = {
            "centre": (d,), "gain": (d,), "moves": (len(features), t),
            "offsets": (len(features), t), "feature": (k,), "support": (k, d),
            "coefficients": (k, t), "residuals": (k, t),
        }  # fmt: skip
        if any(arrays[name].shape != shape for name, shape in shapes.items()):
            raise ValueError("directions: shapes disagree")
        taps = tuple(meta["taps"])
        if len(taps) != len(widths) or taps[-1:] != (meta["target"],) or t != widths[-1]:
            raise ValueError("directions: the taps do not match their widths")
        if k and not 0 <= int(arrays["feature"].min()) <= int(arrays["feature"].max()) < len(
            features
        ):
            raise ValueError("directions: a pair of no feature")
        return cls(
            features=features, taps=taps, widths=widths, target=meta["target"],
            origin=meta["origin"], penalty=float(meta["penalty"]),
            rectified=bool(meta["rectified"]), **arrays,
        )  # fmt: skip


def _roots(activations: Activations, taps: Sequence[str]) -> Array:
    """Taps side by side as signed square roots: rectified activations are skewed. [n, D]"""
    h = np.concatenate([np.asarray(activations[t], dtype=np.float64) for t in taps], axis=1)
    return np.sign(h) * np.sqrt(np.abs(h))


def _standard(marginal: Array, widths: Sequence[int]) -> tuple[Array, Array]:
    """Centre and gain [D]: unit variance, and each tap of equal weight whatever its width."""
    spread = marginal.std(axis=0)
    share = np.repeat([1.0 / np.sqrt(max(w, 1)) for w in widths], widths)
    live = spread > 1e-6 * np.maximum(np.abs(marginal).mean(axis=0), 1e-6)
    # A hair on the spread: a unit that hardly ever speaks must not be heard above all others.
    gain = np.where(live, share / (spread + 1e-3), 0.0)
    return marginal.mean(axis=0), gain


def _check(
    features: int, which: NDArray[np.int64], present: Array, here: Array, gone: Array,
    marginal: Array, origin: str,
) -> None:  # fmt: skip
    if origin not in ORIGINS:
        raise InputError(
            "unknown origin of pairs", field="origin", found=origin, expected=", ".join(ORIGINS)
        )
    k = len(which)
    if here.shape != gone.shape or len(here) != k or len(present) != k:
        raise InputError(
            "the two sides of the pairs differ", code="wrong_shape", field="absent",
            found=str(list(gone.shape)), expected=str([k, here.shape[-1]]),
        )  # fmt: skip
    if k and not 0 <= which.min() <= which.max() < features:
        raise InputError(
            "a pair of no feature", field="feature", found=str(int(which.max())),
            expected=f"0 to {features - 1}",
        )  # fmt: skip
    if len(marginal) == 0:
        raise InputError("no lesion", code="too_few", field="reference", expected="1 or more")
    for name, values in (("present", present), ("absent", gone), ("reference", marginal)):
        if not np.isfinite(values).all():
            raise InputError("holds NaN or infinity", code="not_finite", field=name)
