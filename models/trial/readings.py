"""What a bundle says of every lesion of a split: the raw material of all figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.cohort.format import Cohort
from models.cohort.load import load_lesion
from models.model import Model
from models.passes import views
from models.voi import centre, normalise
from wire.cohort import CohortLesion

_STATUS = {"present": 1.0, "absent": 0.0}


@dataclass(frozen=True)
class Readings:
    """Lesions of one split, in file order.

    classes: true class indices [n]. probabilities: calibrated, of the plain view [n, C].
    labels: 1 present, 0 absent, NaN not assessed [n, F]. features: probe probabilities [n, F].
    found: bool [n, F].
    """

    lesion_ids: list[str]
    classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    labels: NDArray[np.float64]
    features: NDArray[np.float64]
    found: NDArray[np.bool_]


def feature_labels(lesions: Sequence[CohortLesion], features: Sequence[str]) -> NDArray[np.float64]:
    """[n, F]: 1 present, 0 absent, NaN for 'ignore' and for what was not assessed."""
    rows = [[_STATUS.get(le.features.get(f, ""), np.nan) for f in features] for le in lesions]
    return np.array(rows, dtype=np.float64).reshape(len(lesions), len(features))


def read_split(
    cohort: Cohort,
    split: str,
    bundle: Bundle,
    model: Model,
    *,
    passes: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Readings:
    """Run every lesion of the split: classes from the plain view, as a prediction has them, and
    features from activations averaged over stochastic passes, as an explanation has them.
    """
    lesions = cohort.lesions(split)
    manifest = bundle.manifest
    shares, vectors = [], []
    for done, entry in enumerate(lesions, 1):
        lesion = load_lesion(
            cohort, entry, manifest.phases, bundle.preprocessing, manifest.optional_phases
        )
        base = normalise(lesion, bundle.preprocessing)
        x = views(base, bundle.preprocessing, bundle.recipe, passes, seed)
        plain = model.forward(centre(base, bundle.preprocessing)[None], ["logits"])
        shares.append(bundle.probabilities(plain["logits"][0]))
        out = model.forward(x, manifest.probe_taps)
        measured = bundle.measure(base, lesion.size_mm)
        vectors.append(bundle.probe_vector(out, measured).mean(axis=0, dtype=np.float64))
        if progress:
            progress(done, len(lesions))
    h = np.stack(vectors)
    return Readings(
        lesion_ids=[entry.lesion_id for entry in lesions],
        classes=np.array([manifest.classes.index(entry.class_id) for entry in lesions]),
        probabilities=np.stack(shares),
        labels=feature_labels(lesions, bundle.probes.features),
        features=bundle.probes.probabilities(h),
        found=bundle.probes.found(h),
    )
