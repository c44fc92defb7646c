"""Which features are found: probabilities against operating points, rounded before they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.reasons.rounding import decimals
from wire.explanation import Interval

_CERTAIN = 1e-6  # closest to 0 and 1 that an interval looks at


@dataclass(frozen=True)
class Detected:
    """One feature. scores: of every probe. absent: phases that it is judged on and that are not
    there; assessable: False where that is all of them."""

    id: str
    found: bool
    probability: float
    ci: Interval | None
    threshold: float
    scores: dict[str, float]
    absent: list[str]
    assessable: bool


def detect(h: NDArray[Any], bundle: Bundle, lacking: Sequence[str] = ()) -> list[Detected]:
    """In the order of the probes. h: what the probes read, a row a stochastic pass [n, D].

    The probability is of the mean over passes: Wang et al. 2019 average the activations, not the
    answers. lacking: phases that were not acquired.
    """
    probes, mean = bundle.probes, h.mean(axis=0, dtype=np.float64)
    scores, probabilities = probes.scores(mean), probes.probabilities(mean)
    spread, labels = _spread(probes.probabilities(h)), probes.label_spread(mean)
    detected = []
    for i, feature_id in enumerate(probes.features):
        feature = bundle.vocabulary.feature(feature_id)
        probability = decimals(probabilities[i])
        threshold = decimals(probes.thresholds[i])
        absent = [p for p in feature.judged_on if p in lacking]
        assessable = not absent or len(absent) < len(feature.judged_on)
        detected.append(
            Detected(
                id=feature_id,
                found=probability >= threshold and probes.thresholds[i] < 1 and assessable,
                probability=probability,
                ci=_interval(probabilities[i], spread[i], labels[i], len(h)),
                threshold=threshold,
                scores={kind: decimals(values[i], 3) for kind, values in scores.items()},
                absent=absent,
                assessable=assessable,
            )
        )
    return detected


def _spread(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of the log-odds over passes [n, F] -> [F]; NaN for one pass."""
    if len(probabilities) < 2:
        return np.full(probabilities.shape[1], np.nan)
    from scipy.special import logit  # not at the start of a service, see models.voi

    spread: NDArray[np.float64] = logit(np.clip(probabilities, _CERTAIN, 1 - _CERTAIN)).std(
        axis=0, ddof=1
    )
    return spread


def _interval(probability: float, spread: float, labels: float, passes: int) -> Interval | None:
    """Around the probability, taken in log-odds and brought back: the t interval of the mean over
    passes, and beside it what hangs on which lesions were labelled (NaN: not known)."""
    if not np.isfinite(spread):
        return None
    from scipy.special import expit, logit, stdtrit

    middle = logit(np.clip(probability, _CERTAIN, 1 - _CERTAIN))
    by_pass = stdtrit(passes - 1, 0.975) * spread / np.sqrt(passes)
    half = np.hypot(by_pass, 1.96 * labels if np.isfinite(labels) else 0.0)
    return decimals(float(expit(middle - half))), decimals(float(expit(middle + half)))
