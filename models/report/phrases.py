"""Names and half sentences of the report for what the document gives as ids."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from models.reasons.words import join_words

# Where a feature's presence comes from.
SOURCES: Final = {
    "probes": "the features found",
    "reader": "the reader’s features",
    "report": "the report’s features",
}
FORMS: Final = {
    "first_order": "First order",
    "activation_removal": "Activations",
    "image_removal": "Image",
}
_WEIGHTS: Final = {
    "activation_removal": "by taking it out of the activations",
    "image_removal": "by editing it out of the image",
    "first_order": "to first order along the probe’s direction",
}
# What zero, the baseline of integrated gradients, looks like (models.voi.Preprocessing).
_BASELINES: Final = {
    "parenchyma": "plain parenchyma",
    "zscore": "the mean intensity of each phase",
    "minmax": "the darkest voxel of each phase",
    "percentile": "the dark end of each phase’s window",
}


def method_words(method: str, kind: str, intensity: str) -> str:
    """How a map was made. intensity: of the preprocessing, which says what zero looks like."""
    name = words(method).capitalize()
    if method != "integrated_gradients":
        return name
    zero = _BASELINES.get(intensity, "zero")
    if kind == "class":
        return f"{name} against {zero}"
    return f"{name} against the lesion without the feature, where it can be edited out, or {zero}"


def weight_words(forms: Collection[str]) -> str:
    """How the weights of the table were found. forms: those of the features that were found."""
    ways = [text for form, text in _WEIGHTS.items() if form in forms]
    how = f", found {join_words(ways)}" if ways else ""
    return (
        f"change of the class’s centred logit that the feature makes{how}; pale: what a feature "
        "that was not found would add if it were there, to first order"
    )


def words(name: str) -> str:
    """'grad_cam' -> 'grad cam'."""
    return name.replace("_", " ")
