"""The import: find, then for each lesion read -> align -> crop -> write, then split and report.

    OUT/images/<lesion>/{arterial,...}.nii.gz    the phases on one grid, cropped
    OUT/images/<lesion>/import.json              written last: the lesion is finished
    OUT/masks/<lesion>/{lesion,washout,...}.nii.gz
    OUT/{cohort,import,skipped}.json

A lesion's import.json carries a key over all that it was made from. An import that was stopped
goes on where it was; one that is repeated after a file of the source changed redoes that lesion.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.cohort.format import OUTSIDE, SETS, write_cohort
from models.cohort.importers import load_importer
from models.cohort.importers.align import Aligned, align
from models.cohort.importers.base import Found, Head, Options, Reading, Skip
from models.cohort.importers.report import Report, guard, write_json, write_report
from models.cohort.importers.rigid import simpleitk
from models.cohort.importers.splits import place
from models.cohort.nifti import write_nifti
from models.errors import InputError, LensError
from models.volume import Volume
from wire.cohort import CohortFile, CohortLesion

Progress = Callable[[int, int], None]
VERSION = "1"  # raised when align or the files written here change
_DONE = "import.json"


def run_import(
    name: str,
    source: Path,
    out: Path,
    options: Options,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Import `source` into the cohort `out`; returns what became of it.

    name: one of importers.IMPORTERS. A case that cannot be used is skipped with a reason; the
    import fails, with LensError, only where the source is not of that layout, where `out` holds
    another cohort or cannot be written, or where no lesion at all is left. progress(done, total)
    after each lesion.
    """
    try:
        return _run(name, source, out, options, processes, progress)
    except BrokenProcessPool:
        raise LensError(
            "a process of the import died; run it again to go on", code="process_died",
            field="--processes", found=str(processes),
            expected="as many as memory holds, a few volumes each",
        ) from None  # fmt: skip
    except OSError as error:
        raise LensError(
            "a file cannot be read or written; run it again to go on", code="unreadable",
            field=Path(error.filename).name if isinstance(error.filename, str) else out.name,
            found=error.strerror or type(error).__name__,
        ) from None  # fmt: skip


def _run(
    name: str,
    source: Path,
    out: Path,
    options: Options,
    processes: int,
    progress: Progress | None,
) -> Report:
    importer = load_importer(name)
    if not source.exists():
        raise InputError(
            "no such file or folder", code="not_found", field="source", found=source.name
        )
    guard(out, name)
    if options.align == "rigid":
        simpleitk()  # told now, not once a lesion
    head = importer.head(source, options)
    found, skipped = _listed(importer.find(source, options), head, options)
    out.mkdir(parents=True, exist_ok=True)
    finished: dict[str, dict[str, Any]] = {}
    fresh = 0
    work = partial(import_lesion, name, source, out, options, head)
    for done, (case, outcome) in enumerate(_results(work, found, processes), start=1):
        if isinstance(outcome, LensError):
            skipped.append(Skip(case.lesion_id, outcome))
        else:
            record, is_new = outcome
            finished[case.lesion_id] = record
            fresh += is_new
        if progress:
            progress(done, len(found))
    kept = [case for case in found if case.lesion_id in finished]
    split_of, late = place(kept, options)
    skipped += late
    file = _file(head, finished, split_of)
    rows = {
        lesion_id: {"split": split, **{k: finished[lesion_id][k] for k in ("shifts_mm", "notes")}}
        for lesion_id, split in split_of.items()
    }
    write_report(out, name, head, file, options.model_dump(mode="json"), rows, skipped)
    noted = sum(bool(row["notes"]) for row in rows.values())
    if not split_of:
        first = f", the first: {skipped[0].case}: {skipped[0].error.line}" if skipped else ""
        raise InputError(
            "no lesion could be imported",
            code="nothing_imported",
            field="source",
            found=f"{len(skipped)} cases, all skipped{first}" if skipped else "no case",
        )
    write_cohort(out, file)
    return Report(out, len(split_of), fresh, tuple(skipped), noted)


def _listed(items: Any, head: Head, options: Options) -> tuple[list[Found], list[Skip]]:
    """Cases and skips; an id that stands twice, or a class that does not exist, is a skip."""
    found: list[Found] = []
    skipped: list[Skip] = []
    seen: set[str] = set()
    for item in items:
        if isinstance(item, Skip):
            skipped.append(item)
            continue
        try:
            _check_found(item, head, options, seen)
        except InputError as error:
            skipped.append(Skip(item.lesion_id, error))
            continue
        seen.add(item.lesion_id)
        found.append(item)
    return found, skipped


def _check_found(item: Found, head: Head, options: Options, seen: set[str]) -> None:
    if item.lesion_id in seen:
        raise InputError("the lesion stands twice", code="duplicate", field="lesion_id")
    if item.split not in (None, *SETS):
        raise InputError(
            "no such split", code="unknown_split", field="split", found=repr(item.split),
            expected=", ".join(SETS),
        )  # fmt: skip
    if item.split != OUTSIDE and item.class_id not in head.classes:
        raise InputError(
            "no such class", code="unknown_class", field="class", found=repr(item.class_id),
            expected=", ".join(head.classes),
        )  # fmt: skip
    required = head.phases if options.missing == "skip" else head.required or head.phases[:1]
    missing = [p for p in required if p not in item.files]
    if missing:
        raise InputError(
            f"missing phase{'s' if len(missing) > 1 else ''}: {', '.join(missing)}",
            code="missing_phase",
            field=missing[0],
            found=", ".join(item.files) or "none",
            expected=", ".join(required),
        )


Outcome = tuple[dict[str, Any], bool] | LensError


def _results(
    work: Callable[[Found], Outcome], found: list[Found], processes: int
) -> Iterator[tuple[Found, Outcome]]:
    """Outcomes in the order of `found`, whether on one process or several."""
    if processes <= 1:
        yield from ((case, work(case)) for case in found)
        return
    # Forked children of a process with threads can hang; fresh ones cannot.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_deaf) as pool:
        try:
            yield from zip(found, pool.map(work, found), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _deaf() -> None:
    """Ctrl-C is the parent's to hear; a worker finishes its lesion."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def import_lesion(
    name: str, source: Path, out: Path, options: Options, head: Head, found: Found
) -> Outcome:
    """Import one lesion, or find it finished. Returns its record and whether it is new, or why not.

    Any fault of one case stays with that case: what no reader foresaw is told by its kind.
    """
    try:
        key = _key(name, load_importer(name).VERSION, source, options, found)
        folder = out / "images" / folder_name(found.lesion_id)
        record = _finished(folder / _DONE, key, out)
        if record is not None:
            return record, False
        return _import(load_importer(name).read(found, options), out, options, head, found, key)
    except LensError as error:
        return error
    except (ValueError, KeyError, IndexError, TypeError, ArithmeticError) as error:
        return InputError(
            "the case could not be read", code="unreadable", field=found.lesion_id,
            found=f"{type(error).__name__}: {str(error)[:100]}",
        )  # fmt: skip


def _import(
    reading: Reading, out: Path, options: Options, head: Head, found: Found, key: str
) -> Outcome:
    ordered = {p: reading.volumes[p] for p in head.phases if p in reading.volumes}
    reading = Reading(**{**vars(reading), "volumes": ordered})
    aligned = align(reading, options.align, options.margin)
    features = {**found.features, **reading.features}
    features = {k: v for k, v in features.items() if k in head.features}
    _check_aligned(aligned, features)
    folder = folder_name(found.lesion_id)
    images, masks = out / "images" / folder, out / "masks" / folder
    shutil.rmtree(images, ignore_errors=True)
    shutil.rmtree(masks, ignore_errors=True)
    images.mkdir(parents=True)
    entry: dict[str, Any] = {
        "lesion_id": found.lesion_id,
        "patient_id": found.patient_id,
        "class": found.class_id,
        "image": {p: f"images/{folder}/{folder_name(p)}.nii.gz" for p in aligned.volumes},
        "voi": {p: box.as_list() for p, box in aligned.boxes.items()},
        "features": features,
        "masks": {m: f"masks/{folder}/{folder_name(m)}.nii.gz" for m in aligned.masks},
    }
    for phase, volume in aligned.volumes.items():
        write_nifti(out / entry["image"][phase], volume, _dtype(volume.data))
    if aligned.masks:
        masks.mkdir(parents=True)
    grid = next(iter(aligned.volumes.values()))
    for label, voxels in aligned.masks.items():
        write_nifti(out / entry["masks"][label], Volume.make(voxels, grid.affine), np.uint8)
    CohortLesion.model_validate(entry)
    record = {
        "key": key, "entry": entry, "shifts_mm": aligned.shifts_mm, "notes": aligned.notes,
    }  # fmt: skip
    write_json(images / _DONE, record)
    return record, True


def _check_aligned(aligned: Aligned, features: dict[str, Any]) -> None:
    """What `cohort check` would refuse is refused before it is written."""
    for phase, volume in aligned.volumes.items():
        if float(np.ptp(volume.data)) == 0:
            raise InputError(
                "one single value around the lesion", code="no_contrast", field=f"image.{phase}",
                found=f"{float(volume.data.flat[0]):g} everywhere",
            )  # fmt: skip
    for name, voxels in aligned.masks.items():
        if features.get(name) == "absent" and voxels.any():
            raise InputError(
                "the feature is absent, but its mask is not empty", code="contradiction",
                field=f"masks.{name}", found=f"{int(voxels.sum())} voxels",
            )  # fmt: skip
        if not voxels.any() and (name == "lesion" or features.get(name) == "present"):
            raise InputError("the mask is empty", code="empty_mask", field=f"masks.{name}")
    if "lesion" in aligned.masks:
        box = next(iter(aligned.boxes.values()))
        inside = tuple(slice(a, b) for a, b in zip(box.lower, box.upper, strict=True))
        if not aligned.masks["lesion"][inside].any():
            raise InputError(
                "no voxel inside of the box", code="contradiction", field="masks.lesion"
            )


def _dtype(data: NDArray) -> DTypeLike:
    """16 bits where rounding costs less than a thousandth of the range, else float32."""
    low, high = float(data.min()), float(data.max())
    fits = low >= -32768 and high <= 32767
    return np.int16 if fits and high - low >= 500 else np.float32


def _finished(path: Path, key: str, out: Path) -> dict[str, Any] | None:
    """The lesion's record, if it was finished from the same things and its files are all there."""
    try:
        record = json.loads(path.read_text("utf-8"))
        entry = CohortLesion.model_validate(record["entry"])
        kept = {k: record[k] for k in ("key", "entry", "shifts_mm", "notes")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all((out / p).is_file() for p in (*entry.image.values(), *entry.masks.values()))
    return kept if record["key"] == key and whole else None


def _key(name: str, version: str, source: Path, options: Options, found: Found) -> str:
    """Hash of what a lesion is made of: code version, options, table, files by size and time."""
    facts = {
        "import": [VERSION, name, version],
        "options": options.model_dump(mode="json", exclude={"splits", "seed"}),
        "lesion": [found.lesion_id, found.patient_id, found.class_id],
        "boxes": {p: box.as_list() for p, box in found.boxes.items()},
        "features": dict(found.features),
        "facts": dict(found.facts),
        "files": {
            f"{kind}.{label}": _stamps(path, source)
            for kind, paths in (("image", found.files), ("mask", found.masks))
            for label, path in paths.items()
        },
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _stamps(path: Path, source: Path) -> list[list[Any]]:
    """Name, size and time of a file, or of every file of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stamps: list[list[Any]] = []
    for file in files:
        shown = file.relative_to(source) if file.is_relative_to(source) else Path(file.name)
        if file.is_file():
            status = file.stat()
            stamps.append([shown.as_posix(), status.st_size, status.st_mtime_ns])
        else:
            stamps.append([shown.as_posix()])
    return stamps


def folder_name(lesion_id: str) -> str:
    """A lesion id as a folder name that is safe everywhere; different ids, different names."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", lesion_id).lstrip(".")
    if safe == lesion_id and len(safe) <= 80:
        return safe
    return f"{safe[:60]}-{hashlib.sha256(lesion_id.encode()).hexdigest()[:8]}"


def _file(head: Head, finished: dict[str, dict[str, Any]], split_of: dict[str, str]) -> CohortFile:
    lists: dict[str, list[CohortLesion]] = {name: [] for name in SETS}
    for lesion_id, split in split_of.items():
        lists[split].append(CohortLesion.model_validate(finished[lesion_id]["entry"]))
    return CohortFile(
        name=head.name,
        version=head.version,
        licence=head.licence,
        synthetic=head.synthetic,
        modality=head.modality,
        phases=list(head.phases),
        classes=list(head.classes),
        features=list(head.features),
        **lists,
    )
