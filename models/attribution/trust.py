"""The trust card of a map method on one network, and the gate that it must pass.

The four criteria of Arun et al. 2021 (Radiology: Artificial Intelligence, doi
10.1148/ryai.2021200267), and two more:

    localisation     feature: AUPRC against true masks is at least that of the better control;
                     class: the peak lies in the lesion (what speaks for a class need not fill it)
    randomisation    maps change when the weights are shuffled (Adebayo et al. 2018, arXiv
                     1810.03292)
    repeatability    maps of two variations of one lesion agree
    reproducibility  maps of a network that was trained again agree
    completeness     the map adds up to the target's change, where that is promised
    rises            the target is higher at the lesion than at what it is compared with: the
                     network sees what the map is said to show

What could not be measured is not judged. A card on which nothing but `rises` could be measured, or
not even that, does not pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.voi import Preprocessing
from wire.explanation import TrustCard

Kind = Literal["class", "feature"]
Image = NDArray[np.float32]

_RESOLUTION = 0.7  # voxels that maps are smoothed over before they are compared

# A map passes at or beyond these.
LEAST_RISES = 0.7
LEAST_IN_LESION = 0.8
MOST_RANDOM = 0.5
LEAST_REPEATABLE = 0.5
LEAST_REPRODUCIBLE = 0.5
MOST_INCOMPLETE = 0.1


def similarity(a: NDArray, b: NDArray) -> float:
    """Cosine of two maps [P, K, K, K], sign and all; NaN where one of them is zero throughout."""
    flat = []
    for image in (a, b):
        smooth = [ndimage.gaussian_filter(p.astype(np.float64), _RESOLUTION) for p in image]
        flat.append(np.ravel(smooth))
    scale = float(np.linalg.norm(flat[0]) * np.linalg.norm(flat[1]))
    return float(flat[0] @ flat[1]) / scale if scale > 0 else float("nan")


class Variation(NamedTuple):
    """A change of the view that can be undone on a map to the voxel.

    view: base [P, M, M, M] -> tensor [P, K, K, K]. back: a map of that tensor -> where its voxels
    lie in the plain view, zero where it did not reach.
    """

    view: Callable[[NDArray], Image]
    back: Callable[[NDArray], NDArray]


def variation(spec: Preprocessing, phases: int, seed: int, number: int) -> Variation:
    """Mirrored or not along two axes, displaced by up to a voxel, with a gain and an offset a
    phase. The same arguments give the same variation.
    """
    rng = np.random.default_rng([seed, 0x7A81, number])
    mirrored = tuple(1 + axis for axis in (0, 1) if rng.random() < 0.5)
    most = min(1, (spec.base_voxels - spec.tensor_voxels) // 2)
    shift = [int(s) for s in rng.integers(-most, most + 1, 3)]
    gain = rng.normal(1.0, 0.04, phases)[:, None, None, None]
    offset = rng.normal(0.0, 0.04, phases)[:, None, None, None]
    k, margin = spec.tensor_voxels, (spec.base_voxels - spec.tensor_voxels) // 2

    def view(base: NDArray) -> Image:
        acquired = np.array([plane.any() for plane in base])[:, None, None, None]
        cut = tuple(slice(margin + s, margin + s + k) for s in shift)
        turned = np.flip(base, mirrored)[(slice(None), *cut)]
        return np.ascontiguousarray((turned * gain + offset) * acquired, dtype=np.float32)

    def back(image: NDArray) -> NDArray:
        out = np.zeros_like(image)
        there = tuple(slice(max(s, 0), k + min(s, 0)) for s in shift)
        here = tuple(slice(max(-s, 0), k + min(-s, 0)) for s in shift)
        out[(slice(None), *there)] = image[(slice(None), *here)]
        return np.flip(out, mirrored)

    return Variation(view, back)


def judged(card: TrustCard) -> TrustCard:
    """The card with `failed` and `passed` set from its figures."""
    whole = card.kind == "class"
    tests = {
        "localisation": (card.pointing, LEAST_IN_LESION, True)
        if whole
        else (card.auprc, card.control_auprc, True),
        "randomisation": (card.randomisation, MOST_RANDOM, False),
        "repeatability": (card.repeatability, LEAST_REPEATABLE, True),
        "reproducibility": (card.reproducibility, LEAST_REPRODUCIBLE, True),
        "completeness": (card.completeness_error, MOST_INCOMPLETE, False),
        "rises": (card.rises, LEAST_RISES, True),
    }
    failed, measured = [], 0
    for name, (value, limit, at_least) in tests.items():
        if value is None or limit is None:
            continue
        measured += name != "rises"
        if (value < limit) if at_least else (value > limit):
            failed.append(name)
    if not measured or card.rises is None:
        failed.append("too little was measured")
    return card.model_copy(update={"failed": failed, "passed": not failed})
