"""DICOM studies below a folder, with what was drawn on them or a table of boxes.

    SRC/.../<study's files>    phases found as models.cohort.dicom does: by folder, times or names
    SEG, RTSTRUCT              anywhere below SRC, of the same study: lesions, and features of them
    BOXES (CSV, XLSX)          case, lesion_id, class, box | box_<phase> | box_mm | segment

Patient ids are replaced by a hash unless they are asked for. That is a pseudonym, not anonymity:
who knows an id can find its hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.cohort.dicom import find_phases, read_stack
from models.cohort.dicom_slices import Stack, clean, scan_files
from models.cohort.dicom_tree import Region, StudyFiles, find_studies
from models.cohort.importers.base import Found, Head, Reading, Skip, box_of, centroid_mm
from models.cohort.importers.base import Options as _Base
from models.cohort.importers.cells import (
    boxes_of,
    class_of,
    feature_columns,
    numbers,
    required,
    split_of,
    statuses,
)
from models.cohort.importers.dicom_regions import (
    Sorted,
    class_in,
    mask_of,
    regions_of,
    sort_regions,
)
from models.cohort.load import Mask
from models.cohort.table import Row, Table, plain, read_table
from models.errors import InputError, LensError
from models.vocabulary import liver_mri
from models.volume import Box, Volume

NAME = "dicom"
VERSION = "1"
HELP = """DICOM studies below SOURCE, with segmentations beside them or a table of boxes.

    A study's phases are found by folders named arterial, portal_venous, delayed, or by acquisition
    and bolus times, or by series descriptions; where that is unsure the study is skipped.

    Without --boxes, every SEG segment and RTSTRUCT structure is a lesion, but for organs and for
    features ('washout', 'enhancing capsule'), which belong to the lesion that they lie on. The
    class is read from the label or its codes ('HCC', 'lesion 2: hemangioma').

    With --boxes, a table has a row a lesion: case (folder below SOURCE, PatientID or
    StudyInstanceUID), lesion_id, class, and where it is: box (x0,y0,z0,x1,y1,z1; columns, rows and
    slices of the first phase, half open, slices sorted along column x row direction), box_<phase>,
    box_mm (two corners in mm, DICOM patient coordinates) or segment (label or number). Optional:
    patient_id, split, feature_<id>.

    \b
    Example:
      lesionlens cohort import dicom STUDIES build/mine
      lesionlens cohort import dicom STUDIES build/mine --boxes boxes.csv --missing keep
    """

_PHASES = tuple(p.id for p in sorted(liver_mri().phases, key=lambda p: p.seconds))
_NEAR = 3  # voxels beside a lesion's box in which a feature is still that lesion's


class Options(_Base):
    """What the headers don't say."""

    boxes: Path | None = Field(None, description="Table of lesions, CSV or XLSX.")
    sheet: str | None = Field(None, description="Sheet of an .xlsx file; default: the first.")
    name: str = Field("", description="Name of the cohort; default: that of SOURCE.")
    licence: str = Field("not stated", description="Licence of the images.")
    synthetic: bool = Field(False, description="The images are computed, not measured.")
    modality: Literal["MR", "CT"] = Field("MR", description="Studies of another are skipped.")
    phase: tuple[str, ...] = Field(_PHASES, description="A phase, in order of time; repeat.")
    class_name: tuple[str, ...] = Field(
        (), description="A class of the cohort; repeat. Default: the classes that are found."
    )
    keep_ids: bool = Field(False, description="Keep PatientID instead of a hash of it.")


# head() needs what find() lists; a large export is walked once. Popped, so never stale.
_LISTED: dict[tuple[Path, Options], list[Found | Skip]] = {}


def head(source: Path, options: Options) -> Head:
    """Classes and features of what lies below `source`. Raises InputError where no DICOM does."""
    listed = _list(source, options)
    _LISTED[source, options] = listed
    found = [item for item in listed if isinstance(item, Found)]
    classes = {f.class_id for f in found if f.split != "outside"}
    features = {n for f in found for n in (*f.features, *f.facts["features"])}
    vocabulary = liver_mri()
    known = [c for c in vocabulary.class_ids if c in classes]
    named = [f for f in vocabulary.feature_ids if f in features]
    return Head(
        name=options.name or source.resolve().name,
        version="1",
        licence=options.licence,
        source="DICOM studies" + (f" with {options.boxes.name}" if options.boxes else ""),
        phases=options.phase,
        classes=tuple(class_of(c) for c in options.class_name)
        or (*known, *sorted(classes - set(known))),
        features=(*named, *sorted(features - set(named))),
        modality=options.modality,
        synthetic=options.synthetic,
    )


def find(source: Path, options: Options) -> Iterator[Found | Skip]:
    """Every lesion that a table or a segmentation names; studies that cannot be used as Skips."""
    listed = _LISTED.pop((source, options), None)
    yield from _list(source, options) if listed is None else listed


def read(found: Found, options: Options) -> Reading:
    """Phases, boxes and masks of one lesion. Raises InputError for a damaged file or object."""
    volumes = {p: _volume(found, p) for p in found.files}
    first = next(iter(volumes))
    boxes: dict[str, Box] = dict(found.boxes)
    if corners := found.facts.get("box_mm"):
        boxes[first] = _box_in(volumes[first], corners)
    masks: dict[str, Mask] = {}
    centres: dict[str, NDArray] = {}
    for phase, voxels in _drawn(found, found.facts["lesion"], volumes):
        boxes.setdefault(phase, box_of(voxels))
        masks.setdefault("lesion", Mask(phase, voxels))
        centres.setdefault(phase, centroid_mm(voxels, volumes[phase]))
    anchor = next(p for p in volumes if p in boxes)
    for feature, drawn in found.facts["features"].items():
        for phase, voxels in _drawn(found, drawn, volumes):
            own = _on_lesion(voxels, volumes[phase], boxes[anchor], volumes[anchor])
            if own.any():
                masks.setdefault(feature, Mask(phase, own))
    present = {f: "present" for f in masks if f != "lesion"}
    return Reading(volumes, boxes, masks, centres, present | dict(found.features))  # type: ignore[arg-type]


# --- Listing --------------------------------------------------------------------------------------


def _list(source: Path, options: Options) -> list[Found | Skip]:
    studies = find_studies(source)
    table = read_table(options.boxes, sheet=options.sheet) if options.boxes else None
    if table:
        table.need("case", "lesion_id", "class")
        return list(_by_table(source, studies, table, options))
    return [item for study in studies for item in _by_regions(source, study, options)]


def _by_regions(source: Path, study: StudyFiles, options: Options) -> Iterator[Found | Skip]:
    case = _case(source, study)
    try:
        parts = _Parts(study, options)
        if not parts.sorted.lesions:
            raise InputError(
                "no lesion was drawn on the study", code="no_lesion", field="segmentation",
                found=f"{len(study.drawn)} SEG or RTSTRUCT files",
                expected="a segment a lesion, or --boxes",
            )  # fmt: skip
    except LensError as error:
        yield Skip(case, error)
        return
    patient = _patient(study, options)
    used: set[str] = set()
    for group in parts.sorted.lesions:
        name = plain(group[0].label)
        while name in used:
            name += "_again"
        used.add(name)
        class_id = class_in([w for r in group for w in r.words], options.class_name)
        if class_id is None:
            yield Skip(
                f"{case}: {clean(group[0].label)}",
                InputError(
                    "the label names no class, or more than one", code="unknown_class",
                    field="class", found=repr(clean(group[0].label)),
                    expected="a class in the segment's label, or --boxes with segment and class",
                ),
            )  # fmt: skip
            continue
        yield parts.found(
            f"{patient}-{_hash(study.uid, 4)}-{name}", patient, class_id, lesion=group
        )


def _by_table(
    source: Path, studies: Sequence[StudyFiles], table: Table, options: Options
) -> Iterator[Found | Skip]:
    columns = feature_columns(table)
    names: dict[str, set[int]] = {}
    for number, study in enumerate(studies):
        where = study.folder.relative_to(source)
        own = {study.uid, study.patient, where.as_posix(), where.name, *where.parts[:1]}
        for name in own - {"", "."}:
            names.setdefault(name, set()).add(number)
    parts: dict[int, _Parts | LensError] = {}
    for row in table.rows:
        try:
            number = _study_of(row, names)
            if number not in parts:
                parts[number] = _parts(studies[number], options)
            known = parts[number]
            if isinstance(known, LensError):
                raise known
            yield _row(row, studies[number], known, columns, options)
        except LensError as error:
            told = InputError(
                error.message, code=error.code, found=error.found, expected=error.expected,
                field=f"{table.name} line {row.line}: {error.field}",
            )  # fmt: skip
            yield Skip(row["lesion_id"] or f"line {row.line}", told)
    for number, study in enumerate(studies):
        if number not in parts:
            yield Skip(_case(source, study), InputError("no row in the table", code="not_in_table"))


def _study_of(row: Row, names: dict[str, set[int]]) -> int:
    case = required(row, "case").strip("/")
    numbers_ = names.get(case, set())
    if len(numbers_) != 1:
        raise InputError(
            f"{len(numbers_)} studies of this name" if numbers_ else "no such study",
            code="unknown_case", field="case", found=repr(case),
            expected="a folder below the source, a PatientID or a StudyInstanceUID",
        )  # fmt: skip
    return next(iter(numbers_))


def _row(
    row: Row, study: StudyFiles, parts: _Parts, columns: dict[str, str], options: Options
) -> Found:
    """One row's lesion. Raises InputError naming the column."""
    phases = list(parts.stacks)
    boxes = boxes_of(row, phases)
    corners = numbers(row["box_mm"], 6, "box_mm") if row["box_mm"] else None
    lesion: tuple[Region, ...] = ()
    if text := row["segment"]:
        groups = [
            g for g in parts.sorted.lesions
            if any(plain(text) == plain(r.label) or text == str(r.number) for r in g)
        ]  # fmt: skip
        if len(groups) != 1:
            labels = ", ".join(f"{clean(g[0].label)!r}" for g in parts.sorted.lesions)
            raise InputError(
                "no such segment" if not groups else "more than one such segment",
                code="unknown_segment", field="segment", found=repr(text), expected=labels or None,
            )  # fmt: skip
        lesion = groups[0]
    if not boxes and not corners and not lesion:
        raise InputError(
            "nothing says where the lesion is", code="wrong_box", field="box", found="empty",
            expected="box, box_<phase>, box_mm or segment",
        )  # fmt: skip
    return parts.found(
        required(row, "lesion_id"),
        row["patient_id"] or _patient(study, options),
        class_of(required(row, "class")),
        lesion=lesion,
        boxes=boxes,
        features=statuses(row, columns),
        split=split_of(row),
        facts={"box_mm": corners} if corners else {},
    )


def _parts(study: StudyFiles, options: Options) -> _Parts | LensError:
    try:
        return _Parts(study, options)
    except LensError as error:
        return error


class _Parts:
    """A study's phases and regions, from headers alone. Raises InputError where they are unsure."""

    def __init__(self, study: StudyFiles, options: Options) -> None:
        if study.modality != options.modality:
            raise InputError(
                "another modality", code="wrong_modality", field="modality",
                found=clean(study.modality) or "none", expected=options.modality,
            )  # fmt: skip
        optional = options.phase[1:] if options.missing == "keep" else ()
        found = find_phases(study.folder, options.phase, optional=optional, files=study.images)
        self.stacks: dict[str, Stack] = {p: found[p] for p in options.phase if p in found}
        self.phase_of: dict[str, str] = {}
        for phase, stack in self.stacks.items():  # one series may hold several time points
            self.phase_of.setdefault(stack.first.series, phase)
        drawn = [region for path in study.drawn for region in regions_of(path)]
        self.sorted: Sorted = sort_regions(drawn)

    def found(
        self, lesion_id: str, patient: str, class_id: str, *, lesion: Sequence[Region],
        facts: dict[str, Any] | None = None, **more: Any,
    ) -> Found:  # fmt: skip
        """A lesion of this study; all that read() needs is in its files, masks and facts."""
        drawn = [*lesion, *(r for group in self.sorted.features.values() for r in group)]
        keys = {path: f"drawn{i}" for i, path in enumerate(sorted({r.path for r in drawn}))}
        folders = {
            phase: Path(os.path.commonpath([s.path.parent for s in stack.slices]))
            for phase, stack in self.stacks.items()
        }

        def told(regions: Sequence[Region]) -> list[list[Any]]:
            return [[keys[r.path], r.number, self.phase_of.get(r.series, "")] for r in regions]

        return Found(
            lesion_id=lesion_id,
            patient_id=patient,
            class_id=class_id,
            files=folders,
            masks={key: path for path, key in keys.items()},
            facts={
                "slices": {
                    phase: [s.path.relative_to(folders[phase]).as_posix() for s in stack.slices]
                    for phase, stack in self.stacks.items()
                },
                "lesion": told(lesion),
                "features": {f: told(group) for f, group in self.sorted.features.items()},
                **(facts or {}),
            },
            **more,
        )


def _case(source: Path, study: StudyFiles) -> str:
    where = study.folder.relative_to(source).as_posix()
    return where if where != "." else source.resolve().name


def _patient(study: StudyFiles, options: Options) -> str:
    """The header's id or a hash of it; studies without one are patients of their own."""
    if options.keep_ids and study.patient:
        return study.patient
    return "P" + _hash(study.patient or study.uid, 10)


def _hash(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


# --- Reading --------------------------------------------------------------------------------------


def _volume(found: Found, phase: str) -> Volume:
    folder = found.files[phase]
    stacks = scan_files([folder / n for n in found.facts["slices"][phase]], field=phase).stacks
    if len(stacks) != 1:
        raise InputError(
            "not one series any more", code="ambiguous_series", field=phase,
            found=f"{len(stacks)} stacks of slices",
        )  # fmt: skip
    return read_stack(stacks[0], field=phase)


def _drawn(
    found: Found, drawn: Sequence[Sequence[Any]], volumes: dict[str, Volume]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Masks that hold something, each on the phase that it was drawn on, else on the first."""
    for key, number, named in drawn:
        phase = named or next(iter(volumes))
        voxels = mask_of(found.masks[key], number, volumes[phase])
        if voxels.any():
            yield phase, voxels


def _box_in(volume: Volume, corners: Sequence[float]) -> Box:
    """Two corners in mm, LPS, as the voxels whose centres lie between them (to a tenth)."""
    ends = np.array(corners, float).reshape(2, 3) * [-1, -1, 1]
    grid = np.stack(np.meshgrid(*ends.T, indexing="ij"), -1).reshape(-1, 3)
    there = volume.index(grid)
    lower = np.ceil(there.min(axis=0) - 0.1).astype(int)
    upper = np.floor(there.max(axis=0) + 0.1).astype(int) + 1
    return Box.make([lower.tolist(), np.maximum(upper, lower + 1).tolist()], field="box_mm")


def _on_lesion(
    voxels: NDArray[np.bool_], volume: Volume, box: Box, home: Volume
) -> NDArray[np.bool_]:
    """The part of a feature's mask that lies in or beside the lesion's box."""
    places = np.argwhere(voxels)
    index = home.index(volume.world(places))
    low, high = np.array(box.lower) - _NEAR, np.array(box.upper) + _NEAR
    near = ((index >= low) & (index < high)).all(axis=1)
    kept = np.zeros_like(voxels)
    kept[tuple(places[near].T)] = True
    return kept
