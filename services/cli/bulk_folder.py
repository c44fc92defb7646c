"""The folder of a cohort's explanations.

    manifest.jsonl                what was done, one line a lesion
    explanations/<lesion>.json    the documents, the bytes that a single explanation has
    maps/<lesion>.npz  reports/<lesion>.html      where they were asked for
    summary.csv                   one row a lesion, for a spreadsheet

A file is written beside, synced and renamed: a name that is there stands for a whole file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from services.cli.bulk_manifest import Line
from wire.cohort import CohortLesion

EXPLANATIONS, MAPS, REPORTS = "explanations", "maps", "reports"
SUMMARY = "summary.csv"
_ENDINGS = {EXPLANATIONS: ".json", MAPS: ".npz", REPORTS: ".html"}
_LONGEST = 150
_COLUMNS = (
    "lesion", "patient", "labelled_class", "state", "class", "class_label", "probability",
    "pass_agreement", "features_found", "review_advised", "chance_wrong", "unlike_training",
    "document", "error",
)  # fmt: skip


def place(kind: str, lesion_id: str) -> str:
    """Path of a lesion's file inside the folder; the id as it is where that is a safe name."""
    name = quote(lesion_id, safe="+@,= ")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(lesion_id.encode()).hexdigest()[:16]}"
    return f"{kind}/{name}{_ENDINGS[kind]}"


def put(folder: Path, relative: str, data: bytes) -> None:
    """Write a file whole or not at all; on the disk when this returns. Raises OSError."""
    target = folder / relative
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def prepare(folder: Path, kinds: Iterable[str]) -> None:
    """Make the folders, and clear what a killed process left half written."""
    for kind in kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for left in (folder / kind).glob(".*.part"):
            left.unlink(missing_ok=True)


def write_summary(folder: Path, lesions: Iterable[CohortLesion], lines: Mapping[str, Line]) -> Path:
    """summary.csv: the lesions in their order, those without a line as 'waiting'.

    UTF-8 with a byte order mark, which spreadsheets want; a value that a spreadsheet would take for
    a formula gets an apostrophe.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(_COLUMNS)
    for lesion in lesions:
        table.writerow([_harmless(v) for v in _row(lesion, lines.get(lesion.lesion_id))])
    put(folder, SUMMARY, text.getvalue().encode("utf-8-sig"))
    return folder / SUMMARY


def _row(lesion: CohortLesion, line: Line | None) -> list[str]:
    head = [lesion.lesion_id, lesion.patient_id, lesion.class_id]
    if line is None:
        return [*head, "waiting", *[""] * (len(_COLUMNS) - 4)]
    seen = line.verdict
    middle = [""] * 8
    if seen is not None:
        middle = [
            seen.class_id, seen.label, f"{seen.probability:.4f}", f"{seen.agreement:.4f}",
            "; ".join(seen.found), _yes(seen.review),
            "" if seen.chance_wrong is None else f"{seen.chance_wrong:.4f}", _yes(seen.strange),
        ]  # fmt: skip
    return [*head, line.state, *middle, line.document or "", line.error or ""]


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _harmless(value: str) -> str:
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
