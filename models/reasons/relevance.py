"""How much does each feature weigh in the verdict on this lesion? Up to three answers, signed.

    first_order         over the stochastic passes, gradient along the probe's step; every feature
    activation_removal  plain view; found features that the bundle holds paired examples of
    image_removal       plain view; found features that have an image edit

Removal is asked of found features only: what is not there cannot be taken away. The default is the
form that agreed best with what really happens when a feature is switched off (docs/relevance.md):
removal in activations where the directions come from renderings, in the image where they come from
image edits; next the other of the two, next the first order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle.read import Bundle
from models.imaging import edits
from models.model import Model
from models.reasons.rounding import significant
from models.relevance.directions import Directions
from models.relevance.first_order import along, mean_interval
from models.relevance.removal import Removed, class_slopes, from_activations, from_image
from models.voi import centre
from wire.explanation import Completeness, Effect, Relevance, RelevanceForm

_LEAST = 1e-6  # a joint change below it is none: nothing to be complete about


@dataclass(frozen=True)
class View:
    """The lesion as the network saw it.

    base: [P, M, M, M]. size_mm: the VOI's edges. plain: 'logits' and every tap of the plain view,
    [1, ...]. slopes: gradient of the class's centred logit at the probe taps, a row a pass [n, D].
    class_index: the predicted class. edits: of the base.
    """

    base: NDArray[np.float32]
    size_mm: tuple[float, float, float]
    plain: Mapping[str, NDArray[np.float32]]
    slopes: NDArray[np.float32]
    class_index: int
    edits: edits.Edits


@dataclass(frozen=True)
class Weighed:
    """Feature id -> relevance, for every feature of the probes; and do the found ones account for
    the verdict together? completeness: None where none of them could be removed.
    """

    features: dict[str, Relevance]
    completeness: Completeness | None


def weigh(view: View, found: Collection[str], bundle: Bundle, model: Model) -> Weighed:
    """found: ids of the features that are called present on this lesion."""
    probes, directions = bundle.probes, bundle.directions
    steps = np.array([probes.direction(i) for i in range(len(probes.features))])
    steps = steps.reshape(len(probes.features), probes.length)
    leaning = along(view.slopes, steps[:, : bundle.evidence.tap_length], len(bundle.evidence.taps))
    there = [f for f in probes.features if f in found]
    removed = _removed(view, there, bundle, model, directions) if directions and there else None
    edited = _edited(view, there, bundle, model)
    preferred = _PREFERRED["edit" if directions is None else directions.origin]
    weighed = {}
    for i, feature in enumerate(probes.features):
        value, ci = mean_interval(leaning[:, i])
        forms: dict[RelevanceForm, Effect] = {"first_order": _effect(value, ci)}
        changes: dict[RelevanceForm, NDArray[np.float64]] = {}
        shared: float | None = None
        if feature in edited:
            changes["image_removal"] = edited[feature]
            value = float(edited[feature][view.class_index])
            forms["image_removal"] = _effect(value, None)
        if removed and directions and feature in there and (at := _place(removed, i)) is not None:
            changes["activation_removal"] = removed.change[i]
            value = float(removed.change[i, view.class_index])
            half = float(removed.half_width[i, view.class_index])
            ci = (value - half, value + half) if np.isfinite(half) else None
            forms["activation_removal"] = _effect(value, ci)
            shared = significant(float(removed.shared.values[at, view.class_index]))
        form = next(f for f in preferred if f in forms)
        weighed[feature] = Relevance(
            form=form,
            value=forms[form].value,
            ci=forms[form].ci,
            forms={f: forms[f] for f in _ORDER if f in forms},
            by_class=_by_class(changes[form], bundle) if form in changes else {},
            shapley=shared,
        )
    return Weighed(weighed, _completeness(removed, view.class_index))


# By the origin of the directions, best first.
_PREFERRED: dict[str, tuple[RelevanceForm, ...]] = {
    "rendering": ("activation_removal", "image_removal", "first_order"),
    "edit": ("image_removal", "activation_removal", "first_order"),
}
_ORDER: tuple[RelevanceForm, ...] = ("first_order", "activation_removal", "image_removal")


def _removed(
    view: View, there: list[str], bundle: Bundle, model: Model, directions: Directions
) -> Removed:
    """Indices of directions and probes are those of the vocabulary (checked by the bundle)."""
    x = centre(view.base, bundle.preprocessing)
    slopes = class_slopes(model, x, directions.target)
    found = [directions.features.index(f) for f in there]
    return from_activations(directions, view.plain, slopes, found)


def _edited(
    view: View, there: list[str], bundle: Bundle, model: Model
) -> dict[str, NDArray[np.float64]]:
    spec = bundle.preprocessing

    def edit(feature: str, base: NDArray[np.float32]) -> NDArray[np.float32] | None:
        if feature not in edits.EDITS:
            return None
        gone = view.edits.without(feature)
        # Untouched: a phase that the edit needs is missing. That is no answer.
        return None if np.array_equal(gone, base) else gone

    return from_image(
        model, view.base, lambda base: centre(base, spec), view.plain["logits"][0], there, edit
    )


def _place(removed: Removed, i: int) -> int | None:
    return removed.order.index(i) if i in removed.order else None


def _completeness(removed: Removed | None, class_index: int) -> Completeness | None:
    if removed is None or not removed.order:
        return None
    change = float((removed.shared.everything - removed.shared.nothing)[class_index])
    total = float(removed.change[list(removed.order), class_index].sum())
    return Completeness(
        form="activation_removal",
        change=significant(change),
        predicted_change=significant(total),
        error=significant(abs(total - change) / abs(change)) if abs(change) > _LEAST else None,
    )


def _by_class(change: NDArray[np.float64], bundle: Bundle) -> dict[str, float]:
    return {c: significant(float(v)) for c, v in zip(bundle.manifest.classes, change, strict=True)}


def _effect(value: float, ci: tuple[float, float] | None) -> Effect:
    interval = None if ci is None else (significant(ci[0]), significant(ci[1]))
    return Effect(value=significant(value), ci=interval)
