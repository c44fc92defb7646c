"""The manifest of a cohort's explanations: what was asked for, and one line a lesion that is done.

    {"manifest": 1, "cohort": ..., "bundle": ..., "parameters": ..., ...}     the head
    {"id": "L001", "state": "done", "job": "exp-...", "seconds": 0.6, ...}    then lines, appended

A line is written, synced, and only then counts; a lesion's last line wins. Killed at any moment,
the file holds whole lines and at most one torn one at its end, which is cut off when it is opened
again.
"""

from __future__ import annotations

import fcntl
import json
import os
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import InputError
from wire.explanation import Explanation

NAME = "manifest.jsonl"
MANIFEST = 1


class Verdict(BaseModel):
    """What a table shows of an explanation."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    class_id: str = Field(alias="class")
    label: str
    probability: float
    agreement: float = Field(description="Share of the passes with this class.")
    found: list[str] = Field(description="Ids of the features found.")
    review: bool | None = Field(None, description="Look again? Null for a bundle that cannot say.")
    chance_wrong: float | None = None
    strange: bool = Field(description="Outside of what the network knows.")

    @classmethod
    def of(cls, document: Explanation) -> Verdict:
        prediction, review = document.prediction, document.review
        return cls(
            class_id=prediction.class_id,
            label=prediction.label,
            probability=prediction.probabilities[0].probability,
            agreement=prediction.pass_agreement,
            found=[feature.id for feature in document.features if feature.found],
            review=None if review is None else review.flagged,
            chance_wrong=None if review is None else review.score,
            strange=document.out_of_distribution.flagged,
        )


class Line(BaseModel):
    """One lesion. seconds: from the start of its work to its end, by the clock."""

    model_config = ConfigDict(extra="forbid")

    id: str
    state: Literal["done", "failed"]
    job: str | None = Field(None, description="Id of the explanation, as a server has it.")
    seconds: float = 0.0
    document: str | None = Field(None, description="Path inside the folder.")
    error: str | None = None
    verdict: Verdict | None = None

    @classmethod
    def failure(cls, lesion_id: str, reason: str) -> Line:
        """A lesion without an explanation. Errors of a cohort name their lesion; a line does so."""
        reason = reason.removeprefix(f"lesion {lesion_id}: ")
        return cls(id=lesion_id, state="failed", error=reason)

    @property
    def done(self) -> bool:
        return self.state == "done"


class Manifest:
    """Opens `folder`/manifest.jsonl, or starts it; as a context manager it lets go in the end.

    One process at a time: the file is locked, and a process that dies lets go of the lock. Raises
    InputError where another one works here, where the head is another one's, or where the file
    cannot be read or written.
    """

    def __init__(self, folder: Path, head: dict[str, Any]) -> None:
        self.lines: dict[str, Line] = {}
        self.damaged = 0  # whole lines that make no sense: their lesions are explained again
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: FileIO = (folder / NAME).open("ab+", buffering=0)
        except OSError as error:
            raise _unusable(error) from None
        try:
            self._lock()
            self._start({"manifest": MANIFEST} | head)
            _sync_folder(folder)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def add(self, line: Line) -> None:
        """Append a line; when this returns it is on the disk."""
        self.lines[line.id] = line
        self._append(line.model_dump(mode="json", by_alias=True, exclude_none=True))

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                "another process is at work in this folder", code="in_use", field="out"
            ) from None

    def _start(self, head: dict[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.readall()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole and content and not json.dumps(head).encode().startswith(content[:12]):
            raise _foreign()
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        if not whole:
            self._append(head)
            return
        first, *rest = whole[:-1].split(b"\n")
        self._check(first, json.loads(json.dumps(head)))
        for raw in rest:
            try:
                line = Line.model_validate_json(raw)
            except ValidationError:
                self.damaged += 1
                continue
            self.lines[line.id] = line

    def _check(self, first: bytes, head: dict[str, Any]) -> None:
        """Raises InputError, naming the first field that differs."""
        try:
            there = json.loads(first)
        except ValueError:
            raise _foreign() from None
        if not isinstance(there, dict) or "manifest" not in there:
            raise _foreign()
        for field in dict.fromkeys([*head, *there]):
            if there.get(field) != head.get(field):
                found, wanted = _apart(there.get(field), head.get(field))
                raise InputError(
                    "the folder holds explanations that were asked for in another way",
                    code="other_manifest",
                    field=f"{NAME}: {field}",
                    found=found,
                    expected=f"{wanted}, or another --out folder",
                )

    def _append(self, data: dict[str, Any]) -> None:
        raw = json.dumps(data, ensure_ascii=False, separators=(", ", ": ")).encode() + b"\n"
        try:
            # One write: torn only by a crash of the machine, or by a full disk.
            if self._file.write(raw) != len(raw):
                raise OSError("the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unusable(error) from None


def _apart(there: Any, here: Any) -> tuple[str, str]:
    """Of two dicts, only what differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = [k for k in {**there, **here} if there.get(k) != here.get(k)]
        there, here = ({k: d.get(k) for k in names} for d in (there, here))
    return json.dumps(there)[:200], json.dumps(here)[:200]


def _foreign() -> InputError:
    return InputError(
        "not a manifest of this program",
        code="not_a_manifest",
        field=NAME,
        expected="a new folder, or one that `lesionlens explain --cohort` has written",
    )


def _unusable(error: OSError) -> InputError:
    return InputError(
        "cannot be written", code="unwritable", field="out", found=error.strerror or str(error)
    )


def _sync_folder(folder: Path) -> None:
    """A file's name is on the disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
