"""What importers read from a row of a person's table: boxes, classes, splits, names of features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from models.cohort.format import SETS
from models.cohort.labels import status_of
from models.cohort.table import Row, Table, plain
from models.errors import InputError
from models.vocabulary import liver_mri
from models.volume import Box
from wire.cohort import FeatureStatus

EDGES = ("x0", "y0", "z0", "x1", "y1", "z1")
_SPLITS = {
    "train": "training", "val": "validation", "valid": "validation", "testing": "test",
    "out": "outside", "ood": "outside",
}  # fmt: skip


def boxes_of(row: Row, phases: Sequence[str]) -> dict[str, Box]:
    """Boxes in voxel indices, half open: column 'box' or the six x0 ... z1, meant on the first
    phase of `phases`; 'box_<phase>' on that phase. Raises InputError naming the column.
    """
    boxes = {}
    whole = row["box"] or ",".join(t for t in (row[edge] for edge in EDGES) if t)
    if whole and phases:
        boxes[phases[0]] = Box.parse(whole, field="box")
    for phase in phases:
        if text := row[f"box_{plain(phase)}"]:
            boxes[phase] = Box.parse(text, field=f"box_{phase}")
    return boxes


def required(row: Row, column: str) -> str:
    """A cell that must not be empty. Raises InputError."""
    if not row[column]:
        raise InputError("empty", code="empty_cell", field=column)
    return row[column]


@cache
def class_names() -> dict[str, str]:
    """Comparable name -> class id of the default vocabulary: ids, labels, plurals, abbreviations,
    coded meanings.
    """
    names: dict[str, str] = {}
    for c in liver_mri().classes:
        short, _, abbreviation = c.label.partition("(")
        for name in (c.id, c.label, c.plural, short, abbreviation, *(x.meaning for x in c.codes)):
            names |= {plain(name): c.id, plain(name.replace("hem", "haem")): c.id}
    names.pop("", None)
    return names


def class_of(text: str) -> str:
    """The default vocabulary's id for any name of its class; any other text as it is."""
    return class_names().get(plain(text), text)


def feature_of(text: str) -> str:
    """The default vocabulary's id for its id, label or a synonym; any other text made an id."""
    names = {plain(n): f.id for f in liver_mri().features for n in (*f.synonyms, f.label, f.id)}
    return names.get(plain(text), plain(text))


def classes_in(rows: Sequence[Row], given: Sequence[str]) -> tuple[str, ...]:
    """The cohort's classes: as given, or those of the rows that are not set aside; the default
    vocabulary's first, in its order, then the others by name.
    """
    if given:
        return tuple(class_of(name) for name in given)
    found = {class_of(r["class"]) for r in rows if r["class"] and split_text(r) != "outside"}
    known = [c for c in liver_mri().class_ids if c in found]
    return (*known, *sorted(found - set(known)))


def split_text(row: Row) -> str:
    text = row["split"].lower()
    return _SPLITS.get(text, text)


def split_of(row: Row) -> str | None:
    """The split that the row names, None for an empty cell. Raises InputError."""
    split = split_text(row)
    if split and split not in SETS:
        raise InputError(
            "no such split", code="unknown_split", field="split", found=repr(row["split"]),
            expected=", ".join(SETS),
        )  # fmt: skip
    return split or None


def feature_columns(table: Table) -> dict[str, str]:
    """Column 'feature_<name>' -> feature id."""
    return {
        c: feature_of(c.removeprefix("feature_")) for c in table.columns
        if c.startswith("feature_") and c != "feature_"
    }  # fmt: skip


def statuses(row: Row, columns: dict[str, str]) -> dict[str, FeatureStatus]:
    """Feature id -> status for the cells that are filled. Raises InputError naming the column."""
    found: dict[str, FeatureStatus] = {}
    for column, feature in columns.items():
        if not row[column]:
            continue
        status = status_of(row[column])
        if status is None:
            raise InputError(
                "no status", code="wrong_status", field=column, found=repr(row[column][:40]),
                expected="present, absent or ignore",
            )  # fmt: skip
        found[feature] = status
    return found


def numbers(text: str, count: int, field: str) -> list[float]:
    """That many numbers of a cell. Raises InputError."""
    found: list[Any] = re.findall(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", text)
    if len(found) != count:
        raise InputError(
            "not as many numbers", code="wrong_value", field=field, found=repr(text[:60]),
            expected=f"{count} numbers",
        )  # fmt: skip
    return [float(n) for n in found]
