"""The published detectors on a sample: the rows 'wang2019_gaussian' and 'spie_rodeo'.

They read what our own probes may read: the last hidden layer of the same network on the same
lesions, with the labels of the same lesions, and have never seen validation or test lesions. Passes
are those of the sample (25 in the evaluation; published: 100 or 30).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.probes.published.gaussian import Wang2019Gaussian
from models.probes.published.marginal import draw_marginal
from models.probes.published.rodeo import SpieRodeo
from models.probes.published.selection import (
    spie_exclusions,
    spie_found,
    spie_thresholds,
    wang2019_found,
)
from models.trial.data import Sample

SCAR_CLASS = "fnh"  # the class whose sizes bound a central scar
MARGINAL_PASSES = 20  # Wang 2019: passes of a lesion that has no labels
MARGINAL_DRAWS = 1000  # SPIE 2019: draws from each class
THRESHOLD_PASSES = 2  # SPIE 2019: passes of a labelled lesion that set the thresholds


@dataclass(frozen=True)
class Detected:
    """scores: log ratios [n, F], for ranking lesions within a feature. found: [n, F], by the
    publication's own rules. first: the feature named first [n], -1 where none is.
    """

    scores: NDArray[np.float64]
    found: NDArray[np.bool_]
    first: NDArray[np.int64]


def detect_gaussian(
    own: NDArray[np.float32],
    labels: NDArray[np.float64],
    marginal: NDArray[np.float32],
    test: NDArray[np.float32],
    features: Sequence[str],
    sizes_mm: NDArray[np.float64],
    scar_mm: float,
) -> Detected:
    """The Gaussian ratio and its rules. own: passes of the labelled lesions [n, T, D], labels
    [n, F]. marginal: rows [m, D]. test: [k, T', D], its VOI edges [k, 3]; scar_mm: see
    `wang2019_found`.
    """
    scores = Wang2019Gaussian().fit(own, labels, marginal).decision_function(test)
    return Detected(scores, *wang2019_found(scores, features, sizes_mm, scar_mm))


def detect_rodeo(
    own: NDArray[np.float32],
    labels: NDArray[np.float64],
    classes: NDArray[np.int64],
    marginal: NDArray[np.float64],
    test: NDArray[np.float32],
) -> Detected:
    """The kernel density ratio and its rules. classes: of the labelled lesions [n]; the others as
    `detect_gaussian`.
    """
    detector = SpieRodeo().fit(own, labels, marginal)
    seen = detector.decision_function(own[:, :THRESHOLD_PASSES])
    scores = detector.decision_function(test)
    return Detected(
        scores,
        *spie_found(scores, *spie_thresholds(seen, labels), spie_exclusions(labels, classes)),
    )


def scar_size(sizes_mm: NDArray[np.float64]) -> float:
    """75th percentile of the edge (cube root of the volume) of lesions [n, 3]; 0 without any."""
    return float(np.percentile(np.cbrt(np.prod(sizes_mm, axis=1)), 75)) if len(sizes_mm) else 0.0


def wang2019_gaussian(
    training: Sample,
    labelled: NDArray[np.int64],
    test: Sample,
    features: Sequence[str],
    *,
    scar_class: int | None = None,
    tap: str | None = None,
    seed: int = 0,
) -> Detected:
    """The Gaussian ratio of Wang et al. 2019. labelled: rows of `training` with feature labels.

    scar_class: index of focal nodular hyperplasia, whose sizes bound the central scar; None: no
    bound. tap: of `Sample.passes`, default the only one. seed: not needed here.
    """
    name = _tap(training, tap)
    h = np.asarray(training.passes[name])
    return detect_gaussian(
        h[labelled],
        training.labels[labelled],
        h[:, :MARGINAL_PASSES].reshape(-1, h.shape[2]),
        test.passes[name],
        features,
        test.sizes_mm,
        scar_size(
            training.sizes_mm[training.classes == (-1 if scar_class is None else scar_class)]
        ),
    )


def spie_rodeo(
    training: Sample,
    labelled: NDArray[np.int64],
    test: Sample,
    features: Sequence[str],
    *,
    scar_class: int | None = None,
    tap: str | None = None,
    seed: int = 0,
) -> Detected:
    """The kernel density ratio of SPIE 2019. Arguments as `wang2019_gaussian`; seed: of the
    marginal's draws. features and scar_class are not needed here.
    """
    name = _tap(training, tap)
    h = np.asarray(training.passes[name])
    return detect_rodeo(
        h[labelled],
        training.labels[labelled],
        training.classes[labelled],
        draw_marginal(h, training.classes, MARGINAL_DRAWS, seed),
        test.passes[name],
    )


# Row of the report -> how it is made.
PUBLISHED: dict[str, Callable[..., Detected]] = {
    "wang2019_gaussian": wang2019_gaussian,
    "spie_rodeo": spie_rodeo,
}


def _tap(sample: Sample, tap: str | None) -> str:
    names = [tap] if tap is not None else list(sample.passes)
    if len(names) != 1 or names[0] not in sample.passes:
        raise InputError(
            "the sample does not hold the single passes of that tap", field="tap",
            found=", ".join(sample.passes) or "none", expected=tap or "one tap",
        )  # fmt: skip
    return names[0]
