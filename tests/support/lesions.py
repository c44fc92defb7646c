"""Lesions of a cohort as what a client sends and what a worker reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from models.cohort.format import read_cohort, write_cohort
from models.cohort.load import load_lesion, load_study
from models.cohort.nifti import nifti_bytes
from models.voi import Lesion, Preprocessing
from wire.cohort import CohortLesion

Files = dict[str, tuple[str, bytes]]


def upload(cohort_path: Path, phases: list[str], index: int = 0) -> tuple[Files, dict[str, str]]:
    """The multipart form of one lesion: file fields, and the text fields with its boxes."""
    cohort = read_cohort(cohort_path)
    lesions = cohort.lesions()
    study = load_study(cohort, lesions[index % len(lesions)], phases)
    files = {p: (f"{p}.nii.gz", nifti_bytes(v)) for p, v in study.volumes.items()}
    boxes = {
        f"box.{p}": ",".join(str(i) for i in [*b.lower, *b.upper]) for p, b in study.boxes.items()
    }
    return files, boxes


def lesion(cohort_path: Path, phases: list[str], spec: Preprocessing, index: int = 0) -> Lesion:
    """The same lesion on its canonical grid."""
    cohort = read_cohort(cohort_path)
    lesions = cohort.lesions()
    return load_lesion(cohort, lesions[index % len(lesions)], phases, spec)


def part_of(
    cohort_path: Path,
    root: Path,
    count: int,
    change: Callable[[int, CohortLesion], CohortLesion] = lambda _, lesion: lesion,
) -> list[CohortLesion]:
    """Write a cohort of the first `count` lesions in `root`, all in test, each after `change`."""
    cohort = read_cohort(cohort_path)
    lesions = cohort.lesions()[:count]
    for lesion in lesions:
        for relative in {*lesion.image.values(), *lesion.masks.values()}:
            (root / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(cohort_path / relative, root / relative)
    changed = [change(i, lesion) for i, lesion in enumerate(lesions)]
    only = {"training": [], "validation": [], "outside": [], "test": changed}
    write_cohort(root, cohort.file.model_copy(update=only))
    return changed
