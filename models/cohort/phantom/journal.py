"""What a stopped run has written, so that the next one goes on instead of starting over.

    <root>/.unfinished/run.json       what was asked for: generator, seed, DICOM or not
    <root>/.unfinished/<lesion>.json  the lesion's entry, written after all its files

The folder goes away when the cohort is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from models.errors import InputError
from wire.cohort import CohortLesion

_FOLDER = ".unfinished"


class Journal:
    """The record of one run under `root`; made where there is none.

    Raises InputError where the unfinished cohort there was asked for otherwise.
    """

    def __init__(self, root: Path, asked: Mapping[str, object]) -> None:
        self._folder = root / _FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asked, sort_keys=True)
        header = self._folder / "run.json"
        if header.exists() and header.read_text("utf-8") != text:
            raise InputError(
                "the folder holds an unfinished cohort of another kind",
                code="unfinished",
                field="out",
                found=header.read_text("utf-8"),
                expected=f"{text}, or another folder",
            )
        header.write_text(text, "utf-8")

    def read(self, lesion_id: str) -> CohortLesion | None:
        """The entry of a lesion that is on disk whole."""
        path = self._folder / f"{lesion_id}.json"
        if not path.exists():
            return None
        return CohortLesion.model_validate_json(path.read_bytes())

    def write(self, entry: CohortLesion) -> None:
        """Record a lesion whose files are all written. Whole or not at all."""
        path = self._folder / f"{entry.lesion_id}.json"
        half = path.with_suffix(".part")
        half.write_text(entry.model_dump_json(by_alias=True), "utf-8")
        half.replace(path)

    def close(self) -> None:
        """The cohort is whole: nothing to go on with."""
        shutil.rmtree(self._folder)
