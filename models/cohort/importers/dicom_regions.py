"""What the segments and structures of a study are: lesions, features of lesions, or organs.

Told by the label as people write it ('HCC 2', 'Lesion 1 washout', 'Liver'):

    a feature of the vocabulary   a feature of the lesion that it lies on
    an organ, a vessel            nobody's
    anything else                 a lesion, whose class the label or its codes may name
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.cohort import dicom_rtstruct, dicom_seg
from models.cohort.dicom_tree import STRUCTURES, Region, object_class
from models.cohort.importers.cells import class_names
from models.cohort.table import plain
from models.vocabulary import liver_mri
from models.volume import Volume

_ORGANS = {
    "liver", "liver_parenchyma", "parenchyma", "healthy_liver", "vessel", "vessels", "aorta",
    "portal_vein", "hepatic_vein", "hepatic_veins", "vena_cava", "ivc", "spleen", "kidney",
    "kidneys", "left_kidney", "right_kidney", "gallbladder", "pancreas", "stomach", "body",
    "external", "patient", "background",
}  # fmt: skip


@dataclass(frozen=True)
class Sorted:
    """lesions: the regions of each lesion, several where it was drawn on several phases."""

    lesions: tuple[tuple[Region, ...], ...]
    features: dict[str, tuple[Region, ...]]


def regions_of(path: Path) -> list[Region]:
    """The regions that a SEG or RTSTRUCT file declares. Raises InputError."""
    return _reader(path).regions(path)


def mask_of(path: Path, number: int, volume: Volume) -> NDArray[np.bool_]:
    """A region on the grid of `volume`, bool [X, Y, Z]. Raises InputError."""
    return _reader(path).mask(path, number, volume)


def _reader(path: Path) -> Any:
    """One of two modules that read the same way."""
    return dicom_rtstruct if object_class(path) == STRUCTURES else dicom_seg


def sort_regions(regions: Sequence[Region]) -> Sorted:
    """Lesions and features among the regions of one study, in the order in which they come."""
    features: dict[str, list[Region]] = {}
    lesions: list[tuple[str, list[Region]]] = []
    for region in regions:
        name = _bare(region.label)
        feature = _feature(name)
        if feature:
            features.setdefault(feature, []).append(region)
        elif name not in _ORGANS:
            _join(lesions, region)
    return Sorted(
        tuple(tuple(group) for _, group in lesions), {f: tuple(r) for f, r in features.items()}
    )


def _join(lesions: list[tuple[str, list[Region]]], region: Region) -> None:
    """To a lesion of the same name drawn on another series, or as a lesion of its own."""
    key = region.tracking or plain(region.label)
    for known, group in lesions:
        if known == key and region.series and all(
            other.series and other.series != region.series for other in group
        ):  # fmt: skip
            group.append(region)
            return
    lesions.append((key, [region]))


def class_in(words: Sequence[str], classes: Sequence[str] = ()) -> str | None:
    """The one class that these words name: of `classes`, or of the default vocabulary."""
    names = dict(class_names())
    names |= {plain(c): names.get(plain(c), c) for c in classes}
    wanted = {names.get(plain(c), c) for c in classes}
    text = f"_{'_'.join(plain(w) for w in words)}_"
    found = {i for name, i in names.items() if f"_{name}_" in text}
    found = found & wanted if wanted else found
    return found.pop() if len(found) == 1 else None


def _feature(name: str) -> str | None:
    names = {plain(n): f.id for f in liver_mri().features for n in (f.id, f.label, *f.synonyms)}
    return names.get(name)


def _bare(label: str) -> str:
    """'Lesion 1 - Washout' -> 'washout'; a label of nothing else stays as it is."""
    words = [w for w in plain(label).split("_") if not re.fullmatch(r"\d+|lesion|tumou?r|l\d+", w)]
    return "_".join(words) or plain(label)
