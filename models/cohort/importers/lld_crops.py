"""LLD-MMRI's classification crops: a lesion cut out a phase, without voxel size or common frame.

They were cut by the challenge's crop_roi.py: 16 voxels around the box in plane (zeros beyond the
border), 2 slices above and below (none beyond the border), x_max and y_max taken as exclusive
there. So the box can be told from the crop's size, save where slices were missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from models.cohort.importers.base import Found, Reading, Skip
from models.cohort.importers.lld_names import OUTSIDE_CLASS, class_of
from models.cohort.nifti import read_nifti
from models.errors import InputError
from models.volume import Box, Volume

IN_PLANE, SLICES = 16, 2


def is_crops(source: Path) -> bool:
    return _root(source) is not None


def _root(source: Path) -> Path | None:
    """The folder with images/ and labels/*.txt, at `source` or in its classification_dataset."""
    for root in (source / "classification_dataset", source):
        if (root / "images").is_dir() and any((root / "labels").glob("*.txt")):
            return root
    return None


def find_crops(
    source: Path,
    phases: Mapping[str, str],
    fold: int | None,
    spacings: Mapping[tuple[str, str], list[float]],
) -> Iterator[Found | Skip]:
    """The crops of labels.txt, or of train_fold<N> and val_fold<N> with val as the test split.

    spacings: (patient, LLD phase) -> mm, where an annotation tells them.
    """
    root = _root(source)
    if root is None:
        raise InputError(
            "no crops", code="wrong_layout", field="source", found=source.name,
            expected="classification_dataset/images and classification_dataset/labels/*.txt",
        )  # fmt: skip
    for name, split in _tables(root / "labels", fold):
        for line, text in enumerate((root / "labels" / name).read_text("utf-8").splitlines(), 1):
            if not text.strip():
                continue
            try:
                yield _crop(root, text.split(), split, phases, spacings)
            except InputError as error:
                words = text.split()
                case = words[0] if len(words) == 2 else f"{name} line {line}"
                yield Skip(case, error)


def _tables(labels: Path, fold: int | None) -> list[tuple[str, str | None]]:
    """Label files and the split that each stands for."""
    if fold is not None:
        wanted = [(f"train_fold{fold}.txt", None), (f"val_fold{fold}.txt", "test")]
    elif (labels / "labels.txt").is_file():
        wanted = [("labels.txt", None)]
    else:
        wanted = [("train_fold1.txt", None), ("val_fold1.txt", None)]
    for name, _ in wanted:
        if not (labels / name).is_file():
            raise InputError(
                "no such label file", code="wrong_layout", field="labels", found=name,
                expected=", ".join(sorted(p.name for p in labels.glob("*.txt"))[:6]),
            )  # fmt: skip
    return wanted


def _crop(
    root: Path,
    words: list[str],
    split: str | None,
    phases: Mapping[str, str],
    spacings: Mapping[tuple[str, str], list[float]],
) -> Found:
    if len(words) != 2:
        raise InputError(
            "not a label line", code="wrong_table", field="labels", found=" ".join(words)[:60],
            expected="'<patient> <class>'",
        )  # fmt: skip
    name, number = words
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise InputError("not a name", code="wrong_table", field="labels", found=name[:60])
    class_id = class_of(number)
    patient = re.sub(r"_\d+$", "", name)
    folder = root / "images" / name
    files = {ours: folder / f"{lld}.nii.gz" for lld, ours in phases.items()}
    known = {
        ours: spacings[patient, lld] for lld, ours in phases.items() if (patient, lld) in spacings
    }
    return Found(
        name, patient, class_id, {p: f for p, f in files.items() if f.is_file()},
        split="outside" if class_id == OUTSIDE_CLASS else split,
        facts={"layout": "crops", "spacing": known},
    )  # fmt: skip


def read_crop(found: Found, assumed: tuple[float, float, float]) -> Reading:
    """The crops with the annotation's voxel size, their header's where it has one, or `assumed`."""
    volumes, boxes, notes = {}, {}, []
    for phase, path in found.files.items():
        volume = read_nifti(path, field=f"image.{phase}")
        spacing = found.facts["spacing"].get(phase)
        if spacing is None and np.allclose(volume.spacing, 1, atol=1e-4):
            spacing = list(assumed)
            notes.append(f"{phase}: voxel size assumed, {assumed[0]:g} x {assumed[1]:g} x "
                         f"{assumed[2]:g} mm")  # fmt: skip
        affine = volume.affine.copy()
        if spacing is not None:
            affine[:3, :3] *= np.array(spacing) / volume.spacing
        volumes[phase] = Volume.make(volume.data, affine)
        boxes[phase], cut = crop_box(volume.shape, phase)
        notes += cut
    return Reading(volumes, boxes, notes=tuple(notes))


def crop_box(shape: tuple[int, int, int], phase: str) -> tuple[Box, list[str]]:
    """The lesion's box in a crop of this shape, half open; a note where its slices are a guess.

    Raises InputError for a crop that is smaller than its own margin.
    """
    if min(shape[:2]) < 2 * IN_PLANE:
        raise InputError(
            "smaller than the margin around a lesion", code="wrong_shape", field=f"image.{phase}",
            found=" x ".join(map(str, shape)), expected=f"at least {2 * IN_PLANE} voxels in plane",
        )  # fmt: skip
    lower, upper = [IN_PLANE, IN_PLANE], [n - IN_PLANE + 1 for n in shape[:2]]
    upper = [min(b, n) for b, n in zip(upper, shape, strict=False)]
    depth = shape[2]
    if depth > 2 * SLICES:
        lower.append(SLICES)
        upper.append(depth - SLICES)
        return Box.make([lower, upper], field=f"box.{phase}"), []
    lower.append((depth - 1) // 2)
    upper.append(depth // 2 + 1)
    note = f"{phase}: {depth} slices, fewer than the margin has; the middle is taken as the lesion"
    return Box.make([lower, upper], field=f"box.{phase}"), [note]
