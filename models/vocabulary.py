"""Classes, phases and radiological features: data, read from JSON, so that a site brings its own.

Source of the default set: Wang, Hamm et al. 2019 (doi 10.1007/s00330-019-06214-8), table 1. Codes
carry the place where they were looked up and whether that was verified.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

DEFAULT = Path(__file__).with_name("liver_mri.json")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Code(_Data):
    """A coded concept, e.g. SCT 52988006, with its source."""

    scheme: str
    value: str
    meaning: str
    verified: bool
    source: str


class Phase(_Data):
    """A contrast phase and its usual delay after injection in seconds."""

    id: str
    label: str
    seconds: float


class LesionClass(_Data):
    id: str
    label: str
    plural: str
    codes: list[Code] = []


class Feature(_Data):
    """A radiological feature in a radiologist's words.

    judged_on: phases that its definition speaks of, wholly or in part; empty where any will do.
    """

    id: str
    label: str
    synonyms: list[str] = []
    typical_of: list[str]
    judged_on: list[str] = []
    codes: list[Code] = []


class Vocabulary(_Data):
    """A set of classes, phases and features that belong together."""

    name: str
    classes: list[LesionClass]
    phases: list[Phase]
    features: list[Feature]

    @model_validator(mode="after")
    def _check(self) -> Vocabulary:
        for kind in ("classes", "phases", "features"):
            ids = [item.id for item in getattr(self, kind)]
            twice = sorted({i for i in ids if ids.count(i) > 1})
            if twice:
                raise ValueError(f"{kind}: id {twice[0]!r} stands twice")
        known = set(self.class_ids)
        for feature in self.features:
            unknown = sorted(set(feature.typical_of) - known)
            if unknown:
                raise ValueError(f"features.{feature.id}.typical_of: no class {unknown[0]!r}")
            unknown = sorted(set(feature.judged_on) - set(self.phase_ids))
            if unknown:
                raise ValueError(f"features.{feature.id}.judged_on: no phase {unknown[0]!r}")
        return self

    @property
    def class_ids(self) -> list[str]:
        return [c.id for c in self.classes]

    @property
    def phase_ids(self) -> list[str]:
        return [p.id for p in self.phases]

    @property
    def feature_ids(self) -> list[str]:
        return [f.id for f in self.features]

    def lesion_class(self, class_id: str) -> LesionClass:
        return next(c for c in self.classes if c.id == class_id)

    def feature(self, feature_id: str) -> Feature:
        return next(f for f in self.features if f.id == feature_id)

    def phase(self, phase_id: str) -> Phase:
        return next(p for p in self.phases if p.id == phase_id)


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary file; pydantic's ValidationError names the field that is off."""
    return Vocabulary.model_validate(json.loads(path.read_text("utf-8")))


@cache
def liver_mri() -> Vocabulary:
    """The default vocabulary: six classes, three phases, fourteen features."""
    return read_vocabulary(DEFAULT)
