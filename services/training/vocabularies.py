"""The vocabulary of a cohort: its ids, described as the default vocabulary does where it can."""

from __future__ import annotations

from models.cohort.format import Cohort
from models.vocabulary import Feature, LesionClass, Phase, Vocabulary, liver_mri


def vocabulary_of(cohort: Cohort) -> Vocabulary:
    """Classes, phases and features in the cohort's order.

    An id that the default vocabulary lacks is its own label; such a feature is typical of no class
    and such a phase has no usual delay (0 s).
    """
    known, file = liver_mri(), cohort.file
    classes = [
        known.lesion_class(c)
        if c in known.class_ids
        else LesionClass(id=c, label=_words(c), plural=_words(c))
        for c in file.classes
    ]
    phases = [
        known.phase(p) if p in known.phase_ids else Phase(id=p, label=_words(p), seconds=0)
        for p in file.phases
    ]
    features = [
        known.feature(f)
        if f in known.feature_ids
        else Feature(id=f, label=_words(f), typical_of=[])
        for f in file.features
    ]
    present = set(file.classes)
    features = [
        f.model_copy(update={"typical_of": [c for c in f.typical_of if c in present]})
        for f in features
    ]
    same = (file.classes, file.phases, file.features) == (
        known.class_ids,
        known.phase_ids,
        known.feature_ids,
    )
    name = known.name if same else cohort.file.name
    return Vocabulary(name=name, classes=classes, phases=phases, features=features)


def _words(identifier: str) -> str:
    return identifier.replace("_", " ")
