"""First-order forms: how a logit leans along a feature's direction in activation space.

Each tap is a cut through the same network, and moving the activations at one cut moves those behind
it; a sum over cuts would count one path several times, so the mean over taps is taken, which stays
in logits. The centred logit is meant throughout: softmax ignores what all logits share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def along(slopes: NDArray[Any], steps: NDArray[Any], taps: int) -> Array:
    """Directional derivatives, [n, F].

    slopes: gradient of the centred logit at the probe taps, a row a pass or lesion [n, D]. steps:
    [F, D], or [n, F, D] where each lesion has its own, joined over `taps` taps as the slopes are.
    """
    g, v = np.asarray(slopes, np.float64), np.asarray(steps, np.float64)
    return np.einsum("nd,nfd->nf" if v.ndim == 3 else "nd,fd->nf", g, v) / max(taps, 1)


def mean_interval(values: NDArray[Any]) -> tuple[float, tuple[float, float] | None]:
    """Mean over passes [n] and its 95 % t interval; one pass gives none."""
    v = np.asarray(values, np.float64)
    mean = float(v.mean())
    if len(v) < 2:
        return mean, None
    from scipy.special import stdtrit  # not at the start of a service, see models.voi

    half = float(stdtrit(len(v) - 1, 0.975) * v.std(ddof=1) / np.sqrt(len(v)))
    return mean, (mean - half, mean + half)


def projected_out(h: NDArray[Any], weights: NDArray[Any], bias: NDArray[Any]) -> Array:
    """What takes a probe's score to zero by the shortest way, [n, F, D]: h less its projection.

    h: [n, D], standardised. weights [F, D], bias [F]: score = h @ weights.T + bias. The evidence
    for the feature is projected out (Ravfogel et al. 2020, arXiv 2004.07667, one step of it).
    """
    w = np.asarray(weights, np.float64)
    norm = (w**2).sum(axis=1)
    score = np.asarray(h, np.float64) @ w.T + bias
    unit = np.divide(w, norm[:, None], out=np.zeros_like(w), where=norm[:, None] > 0)
    return np.asarray(score[:, :, None] * unit)


def to_absent_mean(
    h: NDArray[Any],
    weights: NDArray[Any],
    bias: NDArray[Any],
    patterns: NDArray[Any],
    absent: NDArray[Any],
) -> Array:
    """What takes a probe's score to its mean over lesions without the feature, [n, F, D].

    Along the pattern, cov(h) w (Haufe et al. 2014, doi 10.1016/j.neuroimage.2013.10.067): the
    conditional mean of h given the score moves along it. absent: that mean score, [F].
    """
    w, p = np.asarray(weights, np.float64), np.asarray(patterns, np.float64)
    gain = np.einsum("fd,fd->f", w, p)
    score = np.asarray(h, np.float64) @ w.T + bias - absent
    share = np.divide(score, gain, out=np.zeros_like(score), where=np.abs(gain) > 1e-12)
    return np.asarray(share[:, :, None] * p)
