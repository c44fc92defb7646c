"""The training lesions whose activations point the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Reference
from models.reasons.rounding import decimals
from models.vocabulary import Vocabulary
from wire.explanation import SimilarLesion


def similar_lesions(
    h: NDArray, reference: Reference, vocabulary: Vocabulary, count: int = 5
) -> list[SimilarLesion]:
    """h: pass-averaged activations [D]. Cosine after standardising by the reference's mean and SD.

    Units that never change on the reference say nothing and are left out.
    """
    known = np.asarray(reference.activations, np.float64)
    mean, spread = known.mean(axis=0), known.std(axis=0)
    alive = spread > 1e-6 * max(float(spread.max(initial=0.0)), 1e-12)
    standard = (known[:, alive] - mean[alive]) / spread[alive]
    here = (np.asarray(h, np.float64)[alive] - mean[alive]) / spread[alive]
    lengths = np.linalg.norm(standard, axis=1) * np.linalg.norm(here)
    cosine = np.divide(standard @ here, lengths, out=np.zeros(len(known)), where=lengths > 0)
    # Rounded first, so that a tie is a tie everywhere; then the reference's own order decides.
    rounded = np.round(cosine, 3)
    order = np.argsort(-rounded, kind="stable")[:count]
    return [
        SimilarLesion(
            lesion_id=reference.lesion_ids[i],
            class_id=reference.class_ids[i],
            label=vocabulary.lesion_class(reference.class_ids[i]).label,
            similarity=decimals(rounded[i], 3),
            features=list(reference.features[i]),
        )
        for i in order
    ]
