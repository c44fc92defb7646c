"""Causal truth on phantoms: lesions rendered again with one feature off, all else equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from models.cohort.phantom.rendering import render
from models.cohort.phantom.spec import LesionSpec
from models.model import Model
from models.trial.data import Pairs
from models.voi import Preprocessing, centre, extract, normalise
from models.volume import Study


def switched_off(
    specs: Sequence[LesionSpec],
    features: Sequence[str],
    model: Model,
    preprocessing: Preprocessing,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Every lesion without each of its features, through the network's plain view.

    specs: what the phantom drew; a pair's lesion is its place in this sequence. features: ids of
    the vocabulary; what a lesion shows beyond them is left alone.
    """
    taps = list(model.info.taps)
    names = ["logits", *taps]
    rows: list[tuple[int, int]] = []
    outputs: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    views: list[NDArray[np.float16]] = []
    for i, spec in enumerate(specs):
        for f, feature in enumerate(features):
            if feature not in spec.features:
                continue
            x = _view(spec.without(feature), model, preprocessing)
            found = model.forward(x[None], names)
            rows.append((i, f))
            views.append(x.astype(np.float16))
            for name in names:
                outputs[name].append(found[name][0])
        if progress:
            progress(i + 1, len(specs))
    place = np.array(rows, dtype=np.int64).reshape(-1, 2)
    shape = model.info.input_shape
    empty = {"logits": len(model.info.classes), **model.info.taps}
    stacked = {
        name: np.stack(values) if values else np.zeros((0, empty[name]), np.float32)
        for name, values in outputs.items()
    }
    return Pairs(
        origin="rendering",
        lesion=place[:, 0],
        feature=place[:, 1],
        logits=stacked.pop("logits"),
        plain=stacked,
        x=np.stack(views) if views else np.zeros((0, *shape), np.float16),
    )


def all_off(
    specs: Sequence[LesionSpec],
    features: Sequence[str],
    model: Model,
    preprocessing: Preprocessing,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Logits [n, C] of every lesion without any of the features: the truth of all at once."""
    rows = np.zeros((len(specs), len(model.info.classes)), dtype=np.float32)
    for i, spec in enumerate(specs):
        x = _view(spec.without(*features), model, preprocessing)
        rows[i] = model.forward(x[None], ["logits"])["logits"][0]
        if progress:
            progress(i + 1, len(specs))
    return rows


def _view(spec: LesionSpec, model: Model, preprocessing: Preprocessing) -> NDArray[np.float32]:
    made = render(spec)
    study = Study.make(made.volumes, made.boxes, list(model.info.phases))
    return centre(normalise(extract(study, preprocessing), preprocessing), preprocessing)
