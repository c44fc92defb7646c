"""Which studies lie below a folder: their images, and what was drawn on them (SEG, RTSTRUCT).

Only a handful of header fields is read of each file, so a large export is listed in one pass.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from models.cohort.dicom_slices import looks_like_dicom, pydicom, quiet
from models.errors import InputError

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set
DRAWN = (SEGMENTATION, LABELMAP, STRUCTURES)
_TAGS = ("SOPClassUID", "StudyInstanceUID", "PatientID", "Modality")


@dataclass(frozen=True)
class StudyFiles:
    """One study. folder: the deepest one that holds all of its files; files in sorted order."""

    uid: str
    patient: str
    folder: Path
    modality: str
    images: tuple[Path, ...]
    drawn: tuple[Path, ...]


@dataclass(frozen=True)
class Region:
    """One segment of a SEG or one structure of an RTSTRUCT, from the header.

    words: label, description and coded names, as written. tracking: an id that the same lesion has
    in several files, or ''. series: SeriesInstanceUID that it was drawn on, or ''.
    """

    path: Path
    number: int
    label: str
    words: tuple[str, ...]
    tracking: str
    series: str


def find_studies(source: Path) -> list[StudyFiles]:
    """Studies below `source`, by folder. Files that are not DICOM are passed over.

    Raises InputError where pydicom is missing or there is no DICOM file at all.
    """
    pydicom()
    files = sorted(p for p in source.rglob("*") if p.is_file())
    images: dict[str, list[Path]] = {}
    drawn: dict[str, list[Path]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for file in files:
        if not looks_like_dicom(file, "source"):
            continue
        kind, study, patient, modality = _header(file)
        if not study:
            continue  # a DICOMDIR, for one, or too damaged to say which study it is of
        is_drawn = kind in DRAWN
        (drawn if is_drawn else images).setdefault(study, []).append(file)
        if not is_drawn:
            facts.setdefault(study, (patient, modality))
    if not images:
        raise InputError(
            "no DICOM images below the folder", code="not_dicom", field="source",
            found=f"{len(files)} files", expected="DICOM studies in folders",
        )  # fmt: skip
    studies = [
        StudyFiles(
            study, facts[study][0], _common(paths), facts[study][1], tuple(paths),
            tuple(drawn.get(study, ())),
        )
        for study, paths in images.items()
    ]  # fmt: skip
    return sorted(studies, key=lambda s: (s.folder, s.uid))


def object_class(path: Path) -> str:
    """The SOP class UID of a file; '' where it is too damaged to say."""
    return _header(path)[0]


def _header(path: Path) -> tuple[str, ...]:
    """The values of _TAGS, '' for what is not there or cannot be read."""
    try:
        with quiet():
            ds = pydicom().dcmread(
                path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS)
            )
            return tuple(str(ds.get(name) or "").strip() for name in _TAGS)
    except InputError:
        raise
    except Exception:  # a damaged header can raise nearly anything
        return ("",) * len(_TAGS)


def _common(paths: list[Path]) -> Path:
    return Path(os.path.commonpath([p.parent for p in paths]))
