"""Can the verdict stand? The features against the class, and the review flag.

    probes' features  --P(feature | class)-->  consistency --+
    reader's features --P(feature | class)-->  consistency --+-> opinions -> review flag
    network, image, network without surroundings ------------+

A reader's or a report's features, where given, are the ones that enter the review score: mistakes
of the probes are mistakes of the network, those of a person are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.model import Model
from models.reasons.consistency import consistency, probe_features, statuses
from models.reasons.detected import Detected
from models.reasons.opinions import opinions
from models.reasons.review import review
from wire.api import ExplanationParameters
from wire.explanation import Consistency, OutOfDistribution, Prediction, Review


def verdict(
    prediction: Prediction,
    network: NDArray[np.float64],
    detected: Sequence[Detected],
    ood: OutOfDistribution,
    base: NDArray[np.float32],
    size_mm: tuple[float, float, float],
    complete: bool,
    bundle: Bundle,
    model: Model,
    parameters: ExplanationParameters,
) -> tuple[list[Consistency], Review | None]:
    """Consistencies, a person's first, and the review; none and None without judges in the bundle.

    network: calibrated probabilities averaged over passes [C]. base: [P, M, M, M]. size_mm: edges
    of the VOI. complete: no phase is missing.
    """
    judges = bundle.judges
    if judges is None:
        return [], None
    known, vocabulary = judges.features, bundle.vocabulary
    probability, found = probe_features(detected)
    fits = [
        consistency(
            known, "probes", known.from_probes(probability), found, prediction, vocabulary
        )
    ]  # fmt: skip
    evidence = known.from_probes(probability)
    if parameters.reader_features:
        given = statuses(parameters.reader_features, known.features)
        evidence = known.from_statuses(given)
        source = parameters.reader_source
        fits.insert(0, consistency(known, source, evidence, given, prediction, vocabulary))
    shares = opinions(bundle, judges, model, base, size_mm, network, complete)
    shares["features"] = known.posterior(evidence)
    return fits, review(
        judges, shares, fits[0], prediction, ood, bundle.manifest.classes, vocabulary
    )
