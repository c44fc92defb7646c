"""The cohort on disk: cohort.json and the files that it names.

    read_cohort   the form: fields, ids, classes, boxes, splits, that every file exists
    check_files   the content: every file read, shapes, voxels, boxes inside, masks on the grid

Faults are collected, not thrown one by one: a person who brings a cohort mends it in one go.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from models.errors import CohortError, InputError, NotFound
from models.volume import Box
from wire.cohort import CohortFile, CohortLesion

SPLITS = ("training", "validation", "test")
OUTSIDE = "outside"
SETS = (*SPLITS, OUTSIDE)
FILE_NAME = "cohort.json"


@dataclass(frozen=True)
class Cohort:
    """A cohort that has been read and found well-formed. root: the folder of cohort.json."""

    root: Path
    file: CohortFile

    def lesions(self, split: str | None = None) -> list[CohortLesion]:
        """Lesions of 'training', 'validation', 'test' or 'outside', in file order.

        None: the three splits together. What is set aside as out of distribution comes only by its
        name, so that nobody trains on it or counts it by accident.
        """
        if split is None:
            return [lesion for name in SPLITS for lesion in getattr(self.file, name)]
        if split not in SETS:
            raise InputError(
                "no such split", code="unknown_split", field="split", found=repr(split),
                expected=", ".join(SETS),
            )  # fmt: skip
        return list(getattr(self.file, split))

    @property
    def everything(self) -> list[CohortLesion]:
        """The three splits and what is set aside outside of them."""
        return [lesion for name in SETS for lesion in self.lesions(name)]

    def split_of(self, lesion_id: str) -> str:
        """'training', 'validation', 'test' or 'outside'. Raises NotFound."""
        lesion = self.find(lesion_id)
        return next(name for name in SETS if lesion in self.lesions(name))

    def find(self, lesion_id: str) -> CohortLesion:
        """The lesion with this id, outside ones too. Raises NotFound."""
        if lesion_id not in self._by_id:
            near = ", ".join(list(self._by_id)[:3])
            raise NotFound(
                f"no lesion {lesion_id!r} in cohort {self.file.name!r}",
                field="lesion",
                expected=f"one of {len(self._by_id)} ids such as {near}" if near else None,
            )
        return self._by_id[lesion_id]

    @cached_property
    def _by_id(self) -> dict[str, CohortLesion]:
        return {lesion.lesion_id: lesion for lesion in self.everything}

    @cached_property
    def hash(self) -> str:
        """Content address, 'c-' and 20 hex digits, over cohort.json and all files in it."""
        digest = hashlib.sha256(_canonical(self.file).encode())
        for relative in sorted({path for lesion in self.everything for path in _paths(lesion)}):
            digest.update(relative.encode() + b"\0")
            with (self.root / relative).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return "c-" + digest.hexdigest()[:20]


def _paths(lesion: CohortLesion) -> Iterator[str]:
    yield from lesion.image.values()
    yield from lesion.masks.values()


def read_cohort(path: Path) -> Cohort:
    """Read a cohort from its folder or its cohort.json.

    Raises CohortError with every fault, each as 'lesion <id>: <field>: ...' or
    'cohort: <field>: ...'; among them patients that stand in two splits.
    """
    source = path / FILE_NAME if path.is_dir() else path
    raw = _raw(source)
    faults: list[str] = []
    head = {key: value for key, value in raw.items() if key not in SETS}
    file: CohortFile | None = None
    try:
        file = CohortFile.model_validate(head)
    except ValidationError as error:
        faults += [f"cohort: {text}" for text in _reasons(error)]
    for split in SETS:
        entries = raw.get(split, [])
        if not isinstance(entries, list):
            faults.append(f"cohort: {split}: not a list of lesions")
            continue
        for number, entry in enumerate(entries):
            try:
                lesion = CohortLesion.model_validate(entry)
            except ValidationError as error:
                name = entry.get("lesion_id") if isinstance(entry, dict) else None
                shown = name if isinstance(name, str) and name else f"{split}[{number}]"
                faults += [f"lesion {shown}: {text}" for text in _reasons(error)]
                continue
            if file is not None:
                getattr(file, split).append(lesion)
    if file is not None:
        cohort = Cohort(source.parent, file)
        faults += form_faults(cohort)
        if not faults:
            return cohort
    raise CohortError(faults)


def _raw(source: Path) -> dict[str, Any]:
    try:
        raw = json.loads(source.read_text("utf-8"))
    except FileNotFoundError:
        raise CohortError(
            [f"cohort: {source.name}: no such file in {source.parent.name!r}"]
        ) from None
    except OSError as error:
        raise CohortError([f"cohort: {source.name}: cannot be read ({error.strerror})"]) from None
    except (UnicodeDecodeError, RecursionError):
        raise CohortError([f"cohort: {source.name}: not a JSON text"]) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise CohortError([f"cohort: {source.name}: not JSON ({error.msg}, {where})"]) from None
    if not isinstance(raw, dict):
        raise CohortError([f"cohort: {source.name}: expected a JSON object"])
    return raw


def _reasons(error: ValidationError) -> list[str]:
    """pydantic's faults in one line each; what was found is shown, shortened."""
    reasons = []
    for fault in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in fault["loc"]) or "entry"
        text = fault["msg"][:1].lower() + fault["msg"][1:]
        if fault["type"] not in ("missing", "extra_forbidden"):
            text += f"; found {str(fault['input'])[:60]!r}"
        reasons.append(f"{place}: {text}")
    return reasons


def form_faults(cohort: Cohort) -> list[str]:
    """Faults that show without opening an image: ids, names, boxes, paths, leaking splits."""
    file = cohort.file
    faults = [
        f"cohort: {field}: {item!r} stands twice"
        for field in ("phases", "classes", "features")
        for item in sorted({i for i in getattr(file, field) if getattr(file, field).count(i) > 1})
    ]
    faults += [f"cohort: {f}: empty" for f in ("phases", "classes") if not getattr(file, f)]
    seen: dict[str, str] = {}
    home: dict[str, str] = {}
    for split in SETS:
        for lesion in cohort.lesions(split):
            say = f"lesion {lesion.lesion_id}: "
            if lesion.lesion_id in seen:
                faults.append(f"{say}lesion_id: stands twice ({seen[lesion.lesion_id]}, {split})")
            seen.setdefault(lesion.lesion_id, split)
            if split == OUTSIDE:
                # Beside validation or test lesions they do no harm: both are unseen in training.
                if home.get(lesion.patient_id) == "training":
                    faults.append(
                        f"{say}patient_id: patient {lesion.patient_id!r} is in training; outside "
                        "lesions must be of patients that the network never saw"
                    )
            elif home.setdefault(lesion.patient_id, split) != split:
                faults.append(
                    f"{say}patient_id: patient {lesion.patient_id!r} is in {split} and in "
                    f"{home[lesion.patient_id]}; splits must be by patient"
                )
            faults += [say + text for text in _lesion_faults(cohort, lesion, split)]
    return faults


def _lesion_faults(cohort: Cohort, lesion: CohortLesion, split: str) -> Iterator[str]:
    file = cohort.file
    if split != OUTSIDE and lesion.class_id not in file.classes:
        yield f"class: {lesion.class_id!r} is not one of {', '.join(file.classes)}"
    for field, given in (("image", lesion.image), ("voi", lesion.voi)):
        for phase in given:
            if phase not in file.phases:
                yield f"{field}.{phase}: no such phase; expected {', '.join(file.phases)}"
    # A phase that was not acquired has neither an image nor a box; one without the other is a slip.
    for phase in file.phases:
        if (phase in lesion.image) != (phase in lesion.voi):
            field, other = ("image", "voi") if phase in lesion.voi else ("voi", "image")
            yield f"{field}.{phase}: missing, though {other}.{phase} is there"
    if not lesion.image and not lesion.voi:
        yield f"image: no phase at all; expected {', '.join(file.phases)}"
    for phase, corners in lesion.voi.items():
        try:
            Box.make(corners, field=f"voi.{phase}")
        except InputError as error:
            yield error.line
    for feature in lesion.features:
        if feature not in file.features:
            yield f"features.{feature}: not one of the cohort's features"
    for name in lesion.masks:
        if name != "lesion" and name not in file.features:
            yield f"masks.{name}: neither 'lesion' nor one of the cohort's features"
    named = [(f"image.{k}", v) for k, v in lesion.image.items()]
    named += [(f"masks.{k}", v) for k, v in lesion.masks.items()]
    for field, relative in named:
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts:
            yield f"{field}: {relative!r} must be a relative path inside the cohort's folder"
        elif not (cohort.root / relative).is_file():
            yield f"{field}: no such file, {relative}"


def write_cohort(root: Path, file: CohortFile, name: str = FILE_NAME) -> Cohort:
    """Write cohort.json (or `name`) in `root`, whole or not at all. The images are the caller's."""
    root.mkdir(parents=True, exist_ok=True)
    partial = root / f".{name}.part"
    partial.write_text(_text(file), "utf-8")
    os.replace(partial, root / name)  # noqa: PTH105 - atomic on every system
    return Cohort(root, file)


def _text(file: CohortFile) -> str:
    """Readable JSON: the head, then one line a lesion."""
    data = file.model_dump(mode="json", by_alias=True)
    head = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in data.items() if k not in SETS]
    lists = []
    for split in SETS:
        lines = ",\n".join("  " + json.dumps(entry) for entry in data[split])
        lists.append(f' "{split}": [\n{lines}\n ]' if lines else f' "{split}": []')
    return "{\n" + ",\n".join(head + lists) + "\n}\n"


def _canonical(file: CohortFile) -> str:
    return json.dumps(file.model_dump(mode="json", by_alias=True), sort_keys=True)
