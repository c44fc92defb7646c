"""LLD-MMRI: multi-phase liver MR, seven classes of lesion, boxes by Annotation.json.

    SRC/labels/Annotation.json       boxes, true spacing, class, by patient and phase
    SRC/images/<patient>/<studyUID>/<seriesUID>.nii.gz

    SRC[/classification_dataset]/images/<patient[_k]>/<phase>.nii.gz      crops, see lld_crops.py
    SRC[/classification_dataset]/labels/{labels,train_fold1,val_fold1,...}.txt

Source: the LLD-MMRI2023 challenge, github.com/LMMMEng/LLD-MMRI2023, and its crop_roi.py for what a
box means: voxel indices along the NIfTI's own axes, both ends inclusive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from models.cohort.importers import base
from models.cohort.importers.base import Found, Head, Reading, Skip
from models.cohort.importers.lld_crops import find_crops, is_crops, read_crop
from models.cohort.importers.lld_names import (
    CLASSES,
    OUTSIDE_CLASS,
    PHASES,
    PRECONTRAST,
    class_of,
)
from models.cohort.nifti import read_nifti
from models.errors import InputError
from models.volume import Box, Volume

NAME = "lld-mmri"
VERSION = "1"
HELP = """Import LLD-MMRI from SOURCE into the cohort OUT.

SOURCE is the set as it is distributed: labels/Annotation.json beside images/, or its
classification_dataset of crops. Arterial, portal venous and delayed phases are taken (C+A, C+V,
C+Delay). Abscesses are no class of the six: they are set aside as out of distribution. Lesions
whose class the challenge hides are skipped.

\b
Example:
  lesionlens cohort import lld-mmri LLD-MMRI build/lld
  lesionlens cohort import lld-mmri LLD-MMRI build/lld-fold1 --layout crops --fold 1
"""
ANNOTATION = ("labels/Annotation.json", "Annotation.json")


class Options(base.Options):
    """Options of this importer."""

    layout: Literal["auto", "volumes", "crops"] = Field(
        "auto", description="Full volumes with Annotation.json, or the classification crops."
    )
    annotation: Path | None = Field(
        None, description="Annotation.json where it is not in SOURCE; with crops, for true spacing."
    )
    precontrast: bool = Field(False, description="Take the phase C-pre as a fourth one.")
    fold: int | None = Field(
        None,
        ge=1,
        le=5,
        description="Crops: lesions of val_fold<N> become the test split; validation is cut "
        "from the others.",
    )
    crop_spacing: tuple[float, float, float] = Field(
        (0.8, 0.8, 3.0),
        description="Crops carry no voxel size: this one, in mm, is assumed where no annotation "
        "tells it, and noted.",
    )


def head(source: Path, options: Options) -> Head:
    """Facts of the set. Raises InputError where neither layout is found."""
    crops = _crops(source, options)
    notes = []
    if crops and not _annotation(source, options):
        x, y, z = options.crop_spacing
        notes.append(
            f"voxel size of the crops is not known; {x:g} x {y:g} x {z:g} mm is assumed, so sizes "
            "in mm and the scale of these lesions are not measured"
        )
    return Head(
        name="LLD-MMRI" + (" classification crops" if crops else ""),
        version="2023",
        licence="CC BY-NC 4.0",
        source="LLD-MMRI2023, https://github.com/LMMMEng/LLD-MMRI2023",
        phases=tuple(PHASES.values()) + ((PRECONTRAST[1],) if options.precontrast else ()),
        classes=tuple(c for c in CLASSES.values() if c != OUTSIDE_CLASS),
        notes=tuple(notes),
    )


def find(source: Path, options: Options) -> Iterator[Found | Skip]:
    """The lesions, in the order of the patients' ids."""
    phases = dict([*PHASES.items(), *([PRECONTRAST] if options.precontrast else [])])
    table = _annotation(source, options)
    patients = _read_annotation(table) if table else {}
    if _crops(source, options):
        yield from find_crops(source, phases, options.fold, _spacings(patients))
        return
    for patient in sorted(patients):
        try:
            yield from _patient(source, patient, patients[patient], phases)
        except InputError as error:
            yield Skip(patient, error)


def read(found: Found, options: Options) -> Reading:
    """The phases with the annotation's spacing and boxes."""
    if found.facts["layout"] == "crops":
        return read_crop(found, options.crop_spacing)
    volumes, boxes, notes = {}, {}, []
    for phase, path in found.files.items():
        volume = read_nifti(path, field=f"image.{phase}")
        spacing = found.facts["spacing"].get(phase)
        volumes[phase], told = _true_spacing(volume, spacing, phase)
        boxes[phase], clipped = _within(found.boxes[phase], volume, phase)
        notes += told + clipped
    return Reading(volumes, boxes, notes=tuple(notes))


def _crops(source: Path, options: Options) -> bool:
    """Which layout lies there. Raises InputError for neither."""
    if options.layout == "crops" or (
        options.layout == "auto" and not (source / ANNOTATION[0]).is_file()
        and not (source / ANNOTATION[1]).is_file() and is_crops(source)
    ):  # fmt: skip
        return True
    if _annotation(source, options) is None:
        raise InputError(
            "not the layout of LLD-MMRI", code="wrong_layout", field="source", found=source.name,
            expected=f"{ANNOTATION[0]} and images/, or classification_dataset/",
        )  # fmt: skip
    return False


def _annotation(source: Path, options: Options) -> Path | None:
    if options.annotation is not None:
        return options.annotation
    return next((source / p for p in ANNOTATION if (source / p).is_file()), None)


def _read_annotation(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        table = json.loads(path.read_text("utf-8"))["Annotation_info"]
        if not isinstance(table, dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the annotation cannot be read", code="wrong_layout", field="annotation",
            found=f"{path.name}: {type(error).__name__}",
            expected="a JSON object with 'Annotation_info'",
        ) from None  # fmt: skip
    return table


def _patient(
    source: Path, patient: str, items: Any, phases: Mapping[str, str]
) -> Iterator[Found | Skip]:
    """One patient's lesions: the series are listed by phase, the lesions by number in each."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError("not a list of series", code="wrong_annotation", field="Annotation_info")
    series: dict[str, dict[str, Any]] = {}
    for item in items:
        phase = phases.get(str(item.get("phase")))
        if phase is not None and (phase not in series or not _file(source, patient, series[phase])):
            series[phase] = item
    numbers = sorted({n for s in series.values() for n in _lesions(s)}, key=lambda n: (len(n), n))
    if not numbers:
        raise InputError(
            "no annotated lesion", code="no_lesion", field="annotation.lesion",
            found=f"phases {', '.join(series) or 'none'}", expected=", ".join(phases),
        )  # fmt: skip
    for number in numbers:
        lesion_id = patient if number == "0" else f"{patient}_{number}"
        try:
            yield _lesion(source, patient, lesion_id, number, series)
        except InputError as error:
            yield Skip(lesion_id, error)


def _lesion(
    source: Path, patient: str, lesion_id: str, number: str, series: Mapping[str, dict[str, Any]]
) -> Found:
    files, boxes, spacing, categories = {}, {}, {}, set()
    for phase, item in series.items():
        lesion = _lesions(item).get(number)
        if lesion is None:
            continue
        categories.add(str(lesion.get("category")))
        path = _file(source, patient, item)
        if path is None:
            continue
        files[phase] = path
        boxes[phase] = _box(lesion, phase)
        spacing[phase] = _spacing(item, phase)
    if len(categories) > 1:
        raise InputError(
            "the phases name different classes", code="contradiction", field="category",
            found=", ".join(sorted(categories)),
        )  # fmt: skip
    class_id = class_of(categories.pop())
    return Found(
        lesion_id, patient, class_id, files, boxes,
        split="outside" if class_id == OUTSIDE_CLASS else None,
        facts={"layout": "volumes", "spacing": spacing},
    )  # fmt: skip


def _lesions(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    annotation = item.get("annotation")
    lesions = annotation.get("lesion") if isinstance(annotation, dict) else None
    if not isinstance(lesions, dict):
        return {}
    return {str(n): lesion for n, lesion in lesions.items() if isinstance(lesion, dict)}


def _file(source: Path, patient: str, item: Mapping[str, Any]) -> Path | None:
    """The series' image. Ids are names, not paths: what would leave the folder is no file."""
    study, series = str(item.get("studyUID")), str(item.get("seriesUID"))
    if any(part in ("", ".", "..") or set(part) & set("/\\") for part in (patient, study, series)):
        return None
    for ending in (".nii.gz", ".nii"):
        path = source / "images" / patient / study / f"{series}{ending}"
        if path.is_file():
            return path
    return None


def _box(lesion: Mapping[str, Any], phase: str) -> Box:
    """Half open, from inclusive ends."""
    field = f"bbox.{phase}"
    try:
        ends = lesion["bbox"]["3D_box"]
        lower, upper = ([int(float(ends[f"{a}_{end}"])) for a in "xyz"] for end in ("min", "max"))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(
            "not a box", code="wrong_box", field=field, found=json.dumps(lesion.get("bbox"))[:80],
            expected="bbox.3D_box with x_min ... z_max",
        ) from None  # fmt: skip
    return Box.make([lower, [v + 1 for v in upper]], field=field)


def _spacing(item: Mapping[str, Any], phase: str) -> list[float] | None:
    """Voxel edges along x, y, z in mm; None where the annotation has none."""
    pixel, slices = item.get("pixel_spacing"), item.get("slice_thickness")
    if pixel is None or slices is None:
        return None
    if isinstance(pixel, str):
        pixel = pixel.strip("[] ").replace("\\", ",").split(",")
    try:
        row, column = (pixel[0], pixel[-1]) if isinstance(pixel, list) else (pixel, pixel)
        spacing = [float(column), float(row), float(slices)]  # DICOM names the rows' distance first
    except (TypeError, ValueError, IndexError):
        spacing = []
    if len(spacing) != 3 or not all(math.isfinite(s) and 0.05 < s < 50 for s in spacing):
        raise InputError(
            "no voxel size", code="wrong_spacing", field=f"pixel_spacing.{phase}",
            found=f"{item.get('pixel_spacing')}, {slices}"[:60], expected="millimetres",
        )  # fmt: skip
    return spacing


def _spacings(patients: Mapping[str, Any]) -> dict[tuple[str, str], list[float]]:
    """(patient, LLD phase) -> voxel edges, for the crops."""
    made = {}
    for patient, items in patients.items():
        for item in items if isinstance(items, list) else []:
            try:
                spacing = _spacing(item, str(item.get("phase")))
            except InputError:
                continue
            if spacing:
                made[patient, str(item.get("phase"))] = spacing
    return made


def _true_spacing(
    volume: Volume, spacing: list[float] | None, phase: str
) -> tuple[Volume, list[str]]:
    """The volume with the annotation's voxel size for its header's, and a note if changed."""
    if spacing is None:
        shown = " x ".join(f"{s:g}" for s in volume.spacing)
        return volume, [
            f"{phase}: no voxel size in the annotation; the header's {shown} mm is used"
        ]
    if np.allclose(volume.spacing, spacing, rtol=0.01):
        return volume, []
    affine = volume.affine.copy()
    affine[:3, :3] *= np.array(spacing) / volume.spacing
    shown = " x ".join(f"{s:.3g}" for s in volume.spacing)
    told = " x ".join(f"{s:.3g}" for s in spacing)
    note = f"{phase}: the header's voxel size {shown} mm was replaced by the annotation's {told} mm"
    return Volume.make(volume.data, affine), [note]


def _within(box: Box, volume: Volume, phase: str) -> tuple[Box, list[str]]:
    """The box, cut by at most one voxel where it ends on the border; farther out is refused."""
    lower = [max(v, 0) if v >= -1 else v for v in box.lower]
    upper = [min(v, n) if v <= n + 1 else v for v, n in zip(box.upper, volume.shape, strict=True)]
    cut = Box.make([lower, upper], field=f"box.{phase}")
    cut.check_inside(volume.shape, field=f"box.{phase}")
    changed = (cut.lower, cut.upper) != (box.lower, box.upper)
    return cut, [f"{phase}: the box was cut by one voxel at the border"] if changed else []
