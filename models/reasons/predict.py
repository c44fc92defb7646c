"""One deterministic pass: calibrated class probabilities, and activations on request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models import voi
from models.bundle.read import Bundle
from models.errors import InputError
from models.model import Model
from models.reasons import cautions
from models.reasons.distribution import outside
from models.reasons.rounding import decimals, significant
from models.vocabulary import Vocabulary
from models.voi import Lesion
from models.volume import refuse_missing
from wire.api import PredictionResponse
from wire.explanation import ClassProbability


def predict(
    lesion: Lesion, bundle: Bundle, model: Model, taps: Sequence[str] = ()
) -> PredictionResponse:
    """Classify a lesion. Raises InputError for an unknown tap or a lesion of other phases."""
    manifest = bundle.manifest
    check_phases(lesion, bundle)
    unknown = [tap for tap in taps if tap not in manifest.taps]
    if unknown:
        raise InputError(
            "no such tap",
            code="unknown_tap",
            field="activations",
            found=unknown[0],
            expected=", ".join(manifest.taps),
        )
    x = voi.tensor(lesion, bundle.preprocessing)[None]
    wanted = list(dict.fromkeys(["logits", *bundle.ood.taps, *taps]))
    outputs = model.forward(x, wanted)
    shares = bundle.probabilities(outputs["logits"][0])
    probabilities = ranked(shares, manifest.classes, bundle.vocabulary)
    ood = outside(outputs, x, bundle, lesion.missing)
    return PredictionResponse(
        bundle=manifest.hash,
        synthetic=manifest.synthetic,
        class_id=probabilities[0].id,
        label=probabilities[0].label,
        probabilities=probabilities,
        logits=[decimals(z) for z in outputs["logits"][0]],
        activations={tap: [significant(v, 6) for v in outputs[tap][0]] for tap in taps},
        out_of_distribution=ood,
        cautions=[
            *cautions.about_distribution(ood),
            *cautions.about_lesion(lesion, bundle.vocabulary),
        ],
    )


def ranked(
    shares: NDArray, classes: Sequence[str], vocabulary: Vocabulary
) -> list[ClassProbability]:
    """Rounded, highest first; ties in the bundle's order. shares: [C]."""
    rounded = np.round(np.asarray(shares, np.float64), 4)
    return [
        ClassProbability(
            id=classes[i],
            label=vocabulary.lesion_class(classes[i]).label,
            probability=decimals(rounded[i]),
        )
        for i in np.argsort(-rounded, kind="stable")
    ]


def check_phases(lesion: Lesion, bundle: Bundle) -> None:
    """A lesion speaks the bundle's phases, in its order, and lacks none that the network needs."""
    if list(lesion.phases) != list(bundle.manifest.phases):
        raise InputError(
            "the lesion has other phases than the bundle",
            code="missing_phase",
            field="phases",
            found=", ".join(lesion.phases),
            expected=", ".join(bundle.manifest.phases),
        )
    refuse_missing(lesion.missing, bundle.manifest.phases, bundle.manifest.optional_phases)
