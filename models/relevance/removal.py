"""What happens to the logits when features are taken away: in activations, or in the image.

    activations   the target tap moves to the state that paired examples predict without them
    image         the lesion is edited, and the network looks again

Both as the change that the features' presence makes: logits with them less logits without, centred,
so that positive speaks for a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.model import Model
from models.relevance.directions import Activations, Directions
from models.relevance.shapley import Shapley, shapley

Array = NDArray[np.float64]
# A base [P, M, M, M] without the feature of this id, or None where no edit is known.
Edit = Callable[[str, NDArray[np.float32]], NDArray[np.float32] | None]
BATCH = 8


@dataclass(frozen=True)
class Removed:
    """One lesion with features taken away from its activations. C classes.

    change: [F, C], each feature alone; zero without pairs. half_width: [F, C], of a 95 % interval,
    NaN where it cannot be had. shared: of the found features `order`, Shapley values [k, C].
    """

    change: Array
    half_width: Array
    order: tuple[int, ...]
    shared: Shapley


def centred(logits: NDArray[Any]) -> Array:
    """Logits [..., C] less their mean over the classes."""
    z = np.asarray(logits, dtype=np.float64)
    return z - z.mean(axis=-1, keepdims=True)


def class_slopes(
    model: Model, x: NDArray[np.float32], target: str, classes: Sequence[int] | None = None
) -> Array:
    """Gradients of centred logits at the tap `target` of one view x [P, K, K, K]: [C, T].

    classes: indices, by default all.
    """
    count = len(model.info.classes)
    chosen = range(count) if classes is None else classes
    weights = (np.eye(count) - 1.0 / count)[list(chosen)].astype(np.float32)
    repeated = np.repeat(x[None], len(weights), axis=0)
    return model.gradients(repeated, {"logits": weights}, [target])[target].astype(np.float64)


def from_activations(
    directions: Directions, activations: Activations, slopes: NDArray[Any], found: Sequence[int]
) -> Removed:
    """Take each feature away, and the found ones together.

    activations: tap -> [1, D_tap], the plain view of one lesion. slopes: [C, T], centred logits at
    the target. found: indices of the features that are there; those without pairs are left aside.
    """
    here = np.asarray(activations[directions.target], np.float64)[0]
    moves = directions.displacement(activations)[0]
    g = np.asarray(slopes, np.float64)
    counts = directions.counts
    order = tuple(f for f in found if counts[f])

    def kept(sets: NDArray[np.bool_]) -> Array:
        gone = (~sets).astype(np.float64) @ moves[list(order)]
        return (directions.without(here, gone) - here) @ g.T

    change = (here - directions.without(here, moves)) @ g.T
    change[counts == 0] = 0.0
    return Removed(
        change=change,
        half_width=directions.half_width(g),
        order=order,
        shared=shapley(kept, len(order)),
    )


def from_image(
    model: Model,
    base: NDArray[np.float32],
    view: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    logits: NDArray[Any],
    features: Sequence[str],
    edit: Edit,
) -> dict[str, Array]:
    """Feature id -> change of the centred logits [C] when it is edited out of the image.

    base: [P, M, M, M] (models.voi.normalise). view: base -> network tensor. logits: of that view
    as it is [C]. Features without an edit are left out.
    """
    edited = {f: e for f in features if (e := edit(f, base)) is not None}
    names = list(edited)
    out: dict[str, Array] = {}
    for start in range(0, len(names), BATCH):
        chunk = names[start : start + BATCH]
        x = np.stack([view(edited[f]) for f in chunk])
        gone = model.forward(x, ["logits"])["logits"]
        out |= dict(zip(chunk, centred(logits) - centred(gone), strict=True))
    return out
