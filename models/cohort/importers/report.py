"""What an import leaves beside the cohort: import.json (how it was made), skipped.json (why not).

A cohort that others will judge by needs its origin in writing: source and licence, options, what
was left out and for which reason, and what was done to each lesion's geometry.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.cohort.format import FILE_NAME
from models.cohort.importers.base import Head, Skip
from models.errors import InputError
from wire.cohort import CohortFile

REPORT, SKIPPED = "import.json", "skipped.json"


@dataclass(frozen=True)
class Report:
    """The outcome: imported counts the cohort's lesions, fresh those written by this run."""

    root: Path
    imported: int
    fresh: int
    skipped: tuple[Skip, ...]
    notes: int

    @property
    def line(self) -> str:
        """What a person reads at the end."""
        text = f"{self.root}: imported {self.imported}"
        if self.fresh < self.imported:
            text += f" ({self.imported - self.fresh} of them before)"
        if self.skipped:
            text += f", skipped {len(self.skipped)}: see {self.root / SKIPPED}"
        if self.notes:
            text += f"; notes on {self.notes} lesions: see {self.root / REPORT}"
        return text


def guard(root: Path, importer: str) -> None:
    """Refuse to write into a folder whose cohort is not what an import of this kind left there.

    Raises InputError: another importer's cohort, a cohort made otherwise, or one that was changed
    since (labels that were joined to it, say, which a new cohort.json would lose).
    """
    if not (root / FILE_NAME).exists():
        return
    try:
        last = json.loads((root / REPORT).read_text("utf-8"))
    except (OSError, ValueError):
        last = {}
    if last.get("importer") != importer:
        raise InputError(
            "the folder holds another cohort", code="not_empty", field=root.name,
            found=f"one of {last.get('importer', 'another origin')}",
            expected="an empty folder, or one that this import began",
        )  # fmt: skip
    if _sha256(_read(root)) not in last.get("cohort_sha256", []):
        raise InputError(
            "cohort.json was changed since the import", code="cohort_changed", field=root.name,
            found="labels or edits that a new import would lose",
            expected="another folder, or this one without cohort.json",
        )  # fmt: skip


def write_report(
    root: Path,
    importer: str,
    head: Head,
    file: CohortFile,
    options: dict[str, Any],
    lesions: dict[str, dict[str, Any]],
    skipped: list[Skip],
) -> None:
    """Write both files, before cohort.json is written of `file`.

    lesions: lesion id -> split, shifts_mm and notes of those imported. The hashes of the cohort
    before and after are both kept, so that a stop between the two writes does no harm.
    """
    before = [_sha256(_read(root))] if (root / FILE_NAME).exists() else []
    rows = [
        {"case": skip.case, "code": skip.error.code, "reason": " ".join(skip.error.line.split())}
        for skip in skipped
    ]
    write_json(
        root / REPORT,
        {
            "importer": importer,
            "source": head.source,
            "licence": head.licence,
            "modality": head.modality,
            "options": options,
            "imported": len(lesions),
            "skipped": dict(sorted(Counter(row["code"] for row in rows).items())),
            "notes": list(head.notes),
            "lesions": lesions,
            "cohort_sha256": [*before, _sha256(file)],
        },
    )
    write_json(root / SKIPPED, rows)


def write_json(path: Path, data: object) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    os.replace(partial, path)  # noqa: PTH105 - atomic on every system


def _read(root: Path) -> CohortFile | None:
    try:
        return CohortFile.model_validate_json((root / FILE_NAME).read_bytes())
    except (OSError, ValueError):
        return None


def _sha256(file: CohortFile | None) -> str:
    text = file.model_dump_json(by_alias=True) if file else "unreadable"
    return hashlib.sha256(text.encode()).hexdigest()
