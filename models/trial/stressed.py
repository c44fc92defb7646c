"""Stress cohorts as arrays: what a network of any kind reads, before it has read it.

A stress cohort stands on lesions of a phantom that no training has seen (those of a sample); where
a kind changes the recipe, its lesions are drawn and rendered again. The last step, the network, is
the same for every sample: see `models.trial.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cohort.phantom import stress
from models.cohort.phantom.profiles import CLASSES, FEATURES
from models.cohort.phantom.rendering import render
from models.cohort.phantom.spec import PHASES, LesionSpec
from models.voi import Preprocessing, extract, normalise
from models.volume import Study

UNSEEN = -1  # the class index of a lesion of no known class: no prediction is right


@dataclass(frozen=True)
class Lesions:
    """n lesions as arrays.

    ids, patients: [n]. classes: index, UNSEEN for none of the known ones [n]. labels: 1 present, 0
    absent [n, F]. sizes_mm: [n, 3]. bases: [n, P, M, M, M].
    """

    ids: tuple[str, ...]
    patients: tuple[str, ...]
    classes: NDArray[np.int64]
    labels: NDArray[np.float64]
    sizes_mm: NDArray[np.float64]
    bases: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def stressed(
    kind: str,
    plain: Lesions,
    seed: int,
    indices: Sequence[int],
    spec: Preprocessing,
    progress: Callable[[int, int], None] | None = None,
) -> Lesions:
    """The stress cohort `kind` of phantom lesions.

    plain: the lesions as they are; seed, indices: of their cohort and of each in it [n], for kinds
    that are rendered anew. label_noise spoils the training and leaves lesions as they are. Raises
    InputError for an unknown kind.
    """
    if kind == "label_noise":
        return plain
    if kind not in stress.RENDERED:
        bases = stress.spoil(kind, plain.bases, plain.sizes_mm, spec, seed)
        return Lesions(
            plain.ids, plain.patients, plain.classes, plain.labels, plain.sizes_mm, bases
        )
    hit = stress.spoiled_rows(kind, len(plain))
    rows = np.flatnonzero(hit).tolist()
    drawn = {row: stress.specs(kind, seed, int(indices[row])) for row in rows}
    ids, patients = list(plain.ids), list(plain.patients)
    classes, labels = plain.classes.copy(), plain.labels.copy()
    sizes, bases = np.array(plain.sizes_mm, dtype=np.float64), plain.bases.copy()
    for done, (row, one) in enumerate(drawn.items(), 1):
        ids[row], patients[row] = one.lesion_id, one.patient_id
        classes[row] = CLASSES.index(one.class_id) if one.class_id in CLASSES else UNSEEN
        labels[row] = np.array([float(f in one.features) for f in FEATURES])
        bases[row], sizes[row] = _rendered(one, spec)
        if progress:
            progress(done, len(drawn))
    return Lesions(tuple(ids), tuple(patients), classes, labels, sizes, bases)


def _rendered(
    drawn: LesionSpec, spec: Preprocessing
) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    made = render(drawn)
    lesion = extract(Study.make(made.volumes, made.boxes, list(PHASES)), spec)
    return normalise(lesion, spec), lesion.size_mm
