"""NIfTI files of any layout, with a table that says which file is what.

    TABLE    lesion_id, patient_id, class, <phase> ..., box | mask ..., split, feature_<id> ...
    SRC      the folder that the table's paths are relative to

A phase's cell that is empty means that the phase was not acquired. Boxes come from the table or are
drawn around the lesion's mask; a feature's mask says that the feature is present.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from models.cohort.importers.base import Found, Head, Reading, Skip, box_of, centroid_mm
from models.cohort.importers.base import Options as _Base
from models.cohort.importers.cells import (
    boxes_of,
    class_of,
    classes_in,
    feature_columns,
    feature_of,
    required,
    split_of,
    statuses,
)
from models.cohort.load import Mask, matching_phase
from models.cohort.nifti import read_nifti
from models.cohort.table import Row, Table, plain, read_table
from models.errors import InputError, LensError
from models.vocabulary import liver_mri
from models.volume import Box, Study, Volume
from wire.cohort import FeatureStatus

NAME = "nifti"
VERSION = "1"
HELP = """NIfTI files in any layout, listed in TABLE (CSV or XLSX), paths relative to SOURCE.

    TABLE has a row a lesion. lesion_id, patient_id, class; a column a phase (arterial,
    portal_venous, delayed, or image_<name>) with the path of its volume, empty where the phase was
    not acquired. The lesion's place: box (x0,y0,z0,x1,y1,z1, voxels of the first phase, half open),
    box_<phase>, or mask (a NIfTI on the grid of a phase), mask_<phase>; with mask_label the value
    of this lesion in a mask of several. Optional: split (training, validation, test, outside),
    feature_<id> (present, absent, ignore), mask_<feature> (the feature is present there).

    \b
    Example of a table:
      lesion_id,patient_id,class,arterial,portal_venous,delayed,mask
      L1,P1,hcc,P1/art.nii.gz,P1/pv.nii.gz,P1/del.nii.gz,P1/lesion.nii.gz
    \b
      lesionlens cohort import nifti SOURCE lesions.csv build/mine --licence CC-BY-4.0
      lesionlens cohort check build/mine
    """

_NO_MASK = {"mask_label"}


class Options(_Base):
    """What a table cannot say of the whole set."""

    table: Path = Field(description="CSV or XLSX.", json_schema_extra={"argument": True})
    sheet: str | None = Field(None, description="Sheet of an .xlsx file; default: the first.")
    name: str = Field("", description="Name of the cohort; default: that of SOURCE.")
    licence: str = Field("not stated", description="Licence of the images.")
    synthetic: bool = Field(False, description="The images are computed, not measured.")
    modality: Literal["MR", "CT"] = Field("MR", description="Of all images.")
    phase: tuple[str, ...] = Field(
        (), description="A phase, in order of time; repeat. Default: the phases in TABLE's header."
    )
    require: tuple[str, ...] = Field(
        (), description="With --missing keep: a phase that must be there all the same; repeat."
    )
    class_name: tuple[str, ...] = Field(
        (), description="A class of the cohort; repeat. Default: the classes in TABLE."
    )


@dataclass(frozen=True)
class _Layout:
    """The table and what its columns mean."""

    table: Table
    phases: dict[str, str]  # phase -> column
    masks: dict[str, str]  # 'lesion', 'lesion@<phase>' or a feature id -> column
    features: dict[str, str]  # column -> feature id

    @property
    def names(self) -> tuple[str, ...]:
        ids = {*self.features.values(), *(m for m in self.masks if not m.startswith("lesion"))}
        known = [f for f in liver_mri().feature_ids if f in ids]
        return (*known, *sorted(ids - set(known)))


def head(source: Path, options: Options) -> Head:
    """Phases, classes and features of the table's header and rows. Raises InputError."""
    layout = _layout(options)
    unknown = [p for p in options.require if p not in layout.phases]
    if unknown:
        raise InputError(
            "no such phase", code="unknown_phase", field="--require", found=unknown[0],
            expected=", ".join(layout.phases),
        )  # fmt: skip
    return Head(
        name=options.name or source.resolve().name,
        version="1",
        licence=options.licence,
        source=f"NIfTI files listed in {options.table.name}",
        phases=tuple(layout.phases),
        classes=classes_in(layout.table.rows, options.class_name),
        features=layout.names,
        required=options.require,
        modality=options.modality,
        synthetic=options.synthetic,
    )


def find(source: Path, options: Options) -> Iterator[Found | Skip]:
    """A lesion a row; a row with a fault is a Skip that names its line."""
    layout = _layout(options)
    for row in layout.table.rows:
        try:
            yield _found(row, source, layout)
        except LensError as error:
            error.field = f"{layout.table.name} line {row.line}: {error.field}"
            yield Skip(row["lesion_id"] or f"line {row.line}", error)


def read(found: Found, options: Options) -> Reading:
    """Volumes, boxes and masks of one row. Raises InputError for a file that does not fit."""
    volumes = {p: read_nifti(path, field=f"image.{p}") for p, path in found.files.items()}
    label = found.facts.get("mask_label")
    boxes: dict[str, Box] = dict(found.boxes)
    masks: dict[str, Mask] = {}
    centres = {}
    features: dict[str, FeatureStatus] = {}
    for name, path in found.masks.items():
        what, _, stated = name.partition("@")
        field = f"masks.{name}"
        mask = _mask(path, volumes, stated, label if what == "lesion" else None, field)
        if what != "lesion":  # tools write empty masks, too: the feature was sought and not found
            masks[what] = mask
            features[what] = "present" if mask.voxels.any() else "absent"
            continue
        if not mask.voxels.any():
            found_no = f"no voxel of value {label}" if label is not None else "no voxel"
            raise InputError("the mask is empty", code="empty_mask", field=field, found=found_no)
        masks.setdefault("lesion", mask)
        centres[mask.phase] = centroid_mm(mask.voxels, volumes[mask.phase])
        boxes.setdefault(mask.phase, box_of(mask.voxels, field=field))
    features |= found.features  # the table's word stands; run.py refuses one that a mask belies
    return Reading(volumes, boxes, masks, centres, features)


def _layout(options: Options) -> _Layout:
    table = read_table(options.table, sheet=options.sheet)
    table.need("lesion_id", "patient_id", "class")
    phases = _phases(table, options)
    columns = {plain(phase): phase for phase in phases}
    masks = {}
    for column in table.columns:
        what = column.removeprefix("mask_")
        if column in ("mask", "mask_lesion"):
            masks["lesion"] = column
        elif column.startswith("mask_") and column not in _NO_MASK:
            masks[f"lesion@{columns[what]}" if what in columns else feature_of(what)] = column
    boxed = any(c == "box" or c == "x0" or c.startswith("box_") for c in table.columns)
    if not boxed and not any(m.startswith("lesion") for m in masks):
        raise InputError(
            f"{table.name} says nowhere where a lesion is", code="missing_column", field="table",
            found=", ".join(table.columns), expected="box, box_<phase>, mask or mask_<phase>",
        )  # fmt: skip
    return _Layout(table, phases, masks, feature_columns(table))


def _phases(table: Table, options: Options) -> dict[str, str]:
    """Phase -> its column. Raises InputError where there is none."""
    if options.phase:
        named = {
            p: next((c for c in (plain(p), f"image_{plain(p)}") if c in table.columns), "")
            for p in options.phase
        }
        table.need(*(plain(p) for p, column in named.items() if not column))
        return named
    usual = [p.id for p in sorted(liver_mri().phases, key=lambda p: p.seconds)]
    found = {p: p for p in usual if p in table.columns}
    for column in table.columns:
        if column.startswith("image_"):
            found.setdefault(column.removeprefix("image_"), column)
    if not found:
        raise InputError(
            f"{table.name} has no column of images", code="missing_column", field="table",
            found=", ".join(table.columns), expected=f"{', '.join(usual)}, or image_<phase>",
        )  # fmt: skip
    return found


def _found(row: Row, source: Path, layout: _Layout) -> Found:
    files = {p: source / row[column] for p, column in layout.phases.items() if row[column]}
    if not files:
        raise InputError("no image of any phase", code="missing_phase", field="image")
    facts = {}
    if row["mask_label"]:
        if not row["mask_label"].isdigit() or row["mask_label"] == "0":
            raise InputError(
                "not a label", code="wrong_value", field="mask_label", found=row["mask_label"],
                expected="a whole number from 1 on",
            )  # fmt: skip
        facts["mask_label"] = int(row["mask_label"])
    masks = {name: source / row[column] for name, column in layout.masks.items() if row[column]}
    boxes = boxes_of(row, list(files))
    for name in [n for n in masks if n.startswith("lesion@")]:
        if name.partition("@")[2] not in files:
            raise InputError(
                "a mask of a phase that has no image",
                code="missing_phase",
                field=layout.masks[name],
            )
    if not boxes and not any(m.startswith("lesion") for m in masks):
        raise InputError(
            "neither a box nor a mask of the lesion", code="wrong_box", field="box", found="empty"
        )
    return Found(
        lesion_id=required(row, "lesion_id"),
        patient_id=required(row, "patient_id"),
        class_id=class_of(required(row, "class")),
        files=files,
        boxes=boxes,
        masks=masks,
        features=statuses(row, layout.features),
        split=split_of(row),
        facts=facts,
    )


def _mask(
    path: Path, volumes: dict[str, Volume], stated: str, label: int | None, field: str
) -> Mask:
    """A mask and its phase. label: the voxels of this value; None: all that are not zero."""
    volume = read_nifti(path, field=field)
    phase = matching_phase(
        volume, Study({stated: volumes[stated]} if stated else volumes, {}), field
    )
    values = np.rint(volume.data)
    voxels = values == label if label is not None else values != 0
    return Mask(phase, voxels)
