"""What an importer is: the part that knows one layout of files, and nothing else.

    find   lists the cases of a source from its tables and file names; opens no image
    read   opens one case: volumes, the boxes that were drawn, masks

run.py does what all importers share: align, crop, write, split, report, resume.
An importer is a module with these names; importers/__init__.py lists it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.cohort.load import Mask
from models.errors import InputError, LensError
from models.volume import Box, Volume
from wire.cohort import FeatureStatus

Alignment = Literal["box", "mask", "scanner", "rigid"]


class Options(BaseModel):
    """Options that every import has. An importer's own `Options` inherits and adds fields.

    The command line is made of the fields: a name gives --name, the description its help, a bool a
    flag, a Literal a choice; json_schema_extra={"argument": True} makes a positional argument.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    align: Alignment = Field(
        "box",
        description="Lay the phases over each other by box centres, by mask centroids, by the "
        "scanner's coordinates alone, or by rigid registration (needs SimpleITK).",
    )
    margin: float = Field(
        1.25, ge=1, le=4, description="Crop edge over the network's default field of view."
    )
    missing: Literal["skip", "keep"] = Field(
        "skip",
        description="A lesion that lacks a phase: skip it, or keep it for networks that are "
        "trained with phase dropout.",
    )
    splits: tuple[float, float, float] = Field(
        (0.6, 0.2, 0.2),
        description="Shares of training, validation and test, by patient, classes spread evenly; "
        "for lesions whose split the source does not name.",
    )
    seed: int = Field(0, ge=0, description="Seed of the splits.")


@dataclass(frozen=True)
class Head:
    """What is true of the whole set. source: a citation or address, kept in import.json.

    required: phases without which a lesion is skipped even by missing='keep'; the first one where
    nothing is named.
    """

    name: str
    version: str
    licence: str
    source: str
    phases: tuple[str, ...]
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    modality: Literal["MR", "CT"] = "MR"
    synthetic: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """One lesion as the source's tables tell of it, no image opened.

    files: phase -> image file or folder. masks: any label -> mask file (read() knows what it
    means). boxes: phase -> box, where a table has them. split: 'training', 'validation', 'test' or
    'outside' where the source says so; None: shared out by patient. facts: what else read() needs,
    JSON values only. All of it goes into the key by which a finished lesion is known again.
    """

    lesion_id: str
    patient_id: str
    class_id: str
    files: Mapping[str, Path]
    boxes: Mapping[str, Box] = field(default_factory=dict)
    masks: Mapping[str, Path] = field(default_factory=dict)
    features: Mapping[str, FeatureStatus] = field(default_factory=dict)
    split: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skip:
    """A case that cannot become a lesion, and why."""

    case: str
    error: LensError


@dataclass(frozen=True)
class Reading:
    """One lesion's images.

    volumes: phase -> volume, each on its own grid. boxes: of the phases that a box was drawn on, at
    least one; the other phases take it over in scanner coordinates (box_of makes one of a mask).
    masks: 'lesion' or a feature id -> mask on the grid of the phase that it names.
    centres: phase -> the lesion's centroid in that phase, mm, RAS+ [3], where it has a mask of its
    own; align='mask' uses them. features: statuses that only the images tell; they go over
    Found.features. notes: what a reader of import.json should know about this lesion.
    """

    volumes: Mapping[str, Volume]
    boxes: Mapping[str, Box]
    masks: Mapping[str, Mask] = field(default_factory=dict)
    centres: Mapping[str, NDArray] = field(default_factory=dict)
    features: Mapping[str, FeatureStatus] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Importer(Protocol):
    """The names that an importer's module has.

    NAME: the verb. HELP: its help text with an example. VERSION: raised when read() changes, so
    that lesions of an older version are imported again.
    """

    NAME: str
    HELP: str
    VERSION: str
    Options: type[Options]

    def head(self, source: Path, options: Any) -> Head:
        """Facts of the whole set. Raises InputError where `source` is not of this layout."""

    def find(self, source: Path, options: Any) -> Iterable[Found | Skip]:
        """The cases in a fixed order, each once; what cannot be used as a Skip."""

    def read(self, found: Found, options: Any) -> Reading:
        """Open one case. Raises LensError: the lesion is skipped with that line."""


def box_of(mask: NDArray, *, field: str = "masks.lesion") -> Box:
    """The smallest box around a mask [X, Y, Z]. Raises InputError for an empty one."""
    if not mask.any():
        raise InputError("the mask is empty", code="empty_mask", field=field)
    lower, upper = [], []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        lower.append(int(filled[0]))
        upper.append(int(filled[-1]) + 1)
    return Box.make([lower, upper], field=field)


def centroid_mm(mask: NDArray, volume: Volume) -> NDArray:
    """Centroid of a non-empty mask on the grid of `volume`, mm, RAS+ [3]."""
    return volume.world(np.argwhere(mask).mean(axis=0))
