"""Several opinions on the class of one lesion: the network's, and three with other mistakes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.bundle.judges import Judges
from models.bundle.read import Bundle
from models.consistency.surroundings import wiped
from models.imaging.measurements import measure, names
from models.model import Model
from models.voi import centre


def opinions(
    bundle: Bundle,
    judges: Judges,
    model: Model,
    base: NDArray[np.float32],
    size_mm: tuple[float, float, float],
    network: NDArray[np.float64],
    complete: bool,
) -> dict[str, NDArray[np.float64]]:
    """Every opinion but the features': expert -> class probabilities [C].

    network: calibrated, averaged over the passes [C]. complete: no phase is missing; the image's
    own opinion is asked only then.
    """
    spec, phases = bundle.preprocessing, tuple(bundle.manifest.phases)
    size = np.asarray(size_mm, dtype=np.float64)
    shares = {"network": network}
    if judges.image is not None and complete:
        found = dict(zip(names(phases), measure(base, size, spec, phases), strict=True))
        values = np.array([found[name] for name in judges.image.names])
        shares["image"] = judges.image.posterior(values)
    x = centre(wiped(base, size, spec), spec)
    logits = model.forward(x[None], ["logits"])["logits"]
    shares["surroundings"] = bundle.probabilities(logits)[0]
    return shares
