"""Write a synthetic cohort: images, masks, cohort.json, and phantom.json with the truth behind it.

    <root>/cohort.json                     the cohort, as any other
    <root>/phantom.json                    seed, and each lesion's index and feature strengths
    <root>/images/<lesion>/<phase>.nii.gz  whole numbers, as a scanner stores them
    <root>/masks/<lesion>/<name>.nii.gz    'lesion' and every feature that is present
    <root>/dicom/<lesion>/...              three MR series, on request

Lesion i depends on (seed, i) alone, not on n, the splits or the number of processes. Lesions set
aside as out of distribution are abscesses of patients of their own; they have no feature labels.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.cohort.format import SPLITS, Cohort, read_cohort, write_cohort
from models.cohort.nifti import write_nifti
from models.cohort.phantom.journal import Journal
from models.cohort.phantom.profiles import CLASSES, FEATURES, OUTSIDE_CLASSES
from models.cohort.phantom.rendering import Rendering, render
from models.cohort.phantom.spec import PHASES, LesionSpec, draw
from models.errors import InputError
from models.volume import Volume
from wire.cohort import CohortFile, CohortLesion

VERSION = "2"  # of the generator: raise it when the same seed gives other voxels
TRUTH_FILE = "phantom.json"
OUTSIDE_FROM = 1_200_000  # index of the first lesion set aside; the first of a patient

Progress = Callable[[int, int], None]


def generate(
    root: Path,
    *,
    n: int,
    seed: int,
    splits: Sequence[float] = (0.70, 0.15, 0.15),
    outside: int = 0,
    dicom: bool = False,
    processes: int = 1,
    progress: Progress | None = None,
) -> Cohort:
    """Write `n` synthetic lesions under `root`, and `outside` abscesses; return the cohort.

    splits: training, validation and test as fractions that sum to 1, or as counts that sum to n;
    patients stay whole. progress(done, total) after each lesion. A run that was stopped goes on
    where it was when it is called again. Raises InputError for bad numbers, or where `root` holds
    the unfinished cohort of another seed.
    """
    counts = _counts(n, splits)
    if outside < 0:
        raise InputError("too few", field="outside", found=str(outside), expected="0 or more")
    specs = [draw(seed, i) for i in range(n)]
    chosen = assign(specs, counts)
    aside = [draw(seed, OUTSIDE_FROM + i, OUTSIDE_CLASSES[0]) for i in range(outside)]
    journal = Journal(root, {"generator": VERSION, "seed": seed, "dicom": dicom})
    entries: dict[str, list[CohortLesion]] = {name: [] for name in (*SPLITS, "outside")}
    total = n + outside
    for done, entry in enumerate(_written(root, [*specs, *aside], dicom, processes, journal), 1):
        entries[chosen[entry.patient_id] if done <= n else "outside"].append(entry)
        if progress:
            progress(done, total)
    _write_truth(root, seed, [*specs, *aside])
    file = CohortFile(
        name=f"phantom-{seed}-{n}",
        version=VERSION,
        licence="CC0-1.0",
        synthetic=True,
        phases=list(PHASES),
        classes=list(CLASSES),
        features=list(FEATURES),
        **entries,  # type: ignore[arg-type]
    )
    write_cohort(root, file)
    journal.close()
    return read_cohort(root)


def _counts(n: int, splits: Sequence[float]) -> list[int]:
    """Lesions wanted in each split. Raises InputError."""
    numbers = [float(s) for s in splits]
    bad = len(numbers) != len(SPLITS) or not np.isfinite(numbers).all() or min(numbers) < 0
    total = sum(numbers)
    if n < 1:
        raise InputError("too few lesions", field="n", found=str(n), expected="1 or more")
    if not bad and abs(total - 1) < 1e-6:
        held = [round(n * s) for s in numbers[1:]]
        return [n - sum(held), *held]
    if not bad and total == n and all(s == int(s) for s in numbers):
        return [int(s) for s in numbers]
    raise InputError(
        "not three shares of the cohort",
        field="splits",
        found=", ".join(f"{s:g}" for s in numbers),
        expected=f"training, validation, test: fractions that sum to 1, or counts that sum to {n}",
    )


def assign(specs: Sequence[LesionSpec], counts: Sequence[int]) -> dict[str, str]:
    """Patient -> split: whole patients, classes spread evenly, counts met where patients allow.

    The largest patients go first, each to the split that lacks most of its lesions' classes.
    """
    patients: dict[str, list[LesionSpec]] = {}
    for spec in specs:
        patients.setdefault(spec.patient_id, []).append(spec)
    share = {name: count / len(specs) for name, count in zip(SPLITS, counts, strict=True)}
    room = dict(zip(SPLITS, counts, strict=True))
    whole = Counter(spec.class_id for spec in specs)
    got: Counter[tuple[str, str]] = Counter()

    def lacks(name: str, lesions: list[LesionSpec]) -> float:
        if not share[name]:
            return -1.0
        filled = [got[name, s.class_id] / (share[name] * whole[s.class_id]) for s in lesions]
        return 1 - sum(filled) / len(filled)

    chosen = {}
    for lesions in sorted(patients.values(), key=lambda p: (-len(p), p[0].index)):
        fits = [name for name in SPLITS if room[name] >= len(lesions)] or list(SPLITS)
        name = max(fits, key=lambda s: lacks(s, lesions))
        room[name] -= len(lesions)
        got.update((name, s.class_id) for s in lesions)
        chosen[lesions[0].patient_id] = name
    return chosen


def _written(
    root: Path, specs: Sequence[LesionSpec], dicom: bool, processes: int, journal: Journal
) -> Iterator[CohortLesion]:
    """Write the lesions, on several processes if asked; yields their entries in order."""
    work = partial(write_lesion, root, dicom, journal)
    keys = [(s.seed, s.index, s.class_id) for s in specs]
    if processes <= 1:
        yield from map(work, keys)
        return
    # Forked children of a process with threads can hang; fresh ones cannot.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(work, keys, chunksize=4)


def write_lesion(
    root: Path, dicom: bool, journal: Journal, key: tuple[int, int, str]
) -> CohortLesion:
    """Draw, render and write lesion (seed, index, class); returns its entry for cohort.json."""
    spec = draw(*key)
    if entry := journal.read(spec.lesion_id):
        return entry
    rendering = render(spec)
    image = {p: f"images/{spec.lesion_id}/{p}.nii.gz" for p in PHASES}
    masks = {name: f"masks/{spec.lesion_id}/{name}.nii.gz" for name in rendering.masks}
    (root / "images" / spec.lesion_id).mkdir(parents=True, exist_ok=True)
    (root / "masks" / spec.lesion_id).mkdir(parents=True, exist_ok=True)
    for p, path in image.items():
        write_nifti(root / path, rendering.volumes[p], np.int16)
    for name, path in masks.items():
        mask = Volume.make(rendering.masks[name], rendering.volumes[PHASES[0]].affine)
        write_nifti(root / path, mask, np.uint8)
    if dicom:
        _write_dicom(root / "dicom" / spec.lesion_id, spec, rendering)
    known = spec.class_id in CLASSES
    entry = CohortLesion.model_validate(
        {
            "lesion_id": spec.lesion_id,
            "patient_id": spec.patient_id,
            "class": spec.class_id,
            "image": image,
            "voi": {p: box.as_list() for p, box in rendering.boxes.items()},
            "features": {f: "present" if f in spec.features else "absent" for f in FEATURES}
            if known
            else {},
            "masks": masks,
        }
    )
    journal.write(entry)
    return entry


def _write_dicom(folder: Path, spec: LesionSpec, rendering: Rendering) -> None:
    """Three MR series of one study; lesions of one patient share its PatientID."""
    # pydicom belongs to an extra: only who asks for DICOM needs it.
    from models.cohort.dicom_write import StudyMeta, write_study

    meta = StudyMeta(
        patient_id=f"PHANTOM-{spec.seed}-{spec.patient_id}",
        study_id=f"{spec.lesion_id}-{spec.seed}",
        synthetic=True,
        description="liver multi-phase phantom",
        seconds=spec.scanner.times,
    )
    write_study(folder, rendering.volumes, meta)


def _write_truth(root: Path, seed: int, specs: Sequence[LesionSpec]) -> None:
    """What a lesion was drawn as, so that it can be rendered again with a feature switched off."""
    lesions: dict[str, Any] = {
        s.lesion_id: {
            "index": s.index,
            "class": s.class_id,
            "diameter_mm": s.form.diameter_mm,
            "strength": dict(s.features),
        }
        for s in specs
    }
    text = json.dumps({"generator": VERSION, "seed": seed, "lesions": lesions}, indent=1)
    (root / TRUTH_FILE).write_text(text + "\n", "utf-8")


def seed_of(root: Path) -> int:
    """The seed of the phantom under `root`. Raises InputError where it is none of this version."""
    try:
        truth = json.loads((root / TRUTH_FILE).read_text("utf-8"))
        version, seed = str(truth["generator"]), int(truth["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            "not a phantom: its lesions can't be rendered again",
            code="no_truth",
            field=TRUTH_FILE,
            found="no readable file",
            expected="a cohort that `lesionlens cohort phantom` wrote",
        ) from None
    if version != VERSION:
        raise InputError(
            "the phantom was written by another version of the generator",
            code="other_version",
            field=f"{TRUTH_FILE}: generator",
            found=version,
            expected=VERSION,
        )
    return seed
