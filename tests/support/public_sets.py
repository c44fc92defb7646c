"""Small sets in the layouts of LLD-MMRI and AMPLIFAI, real files, filled with phantom renders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np

from models.cohort.nifti import write_nifti
from models.cohort.phantom import PHASES, Rendering, draw, render
from models.volume import Box, Volume

SEED = 5
LLD_PHASES = dict(zip(PHASES, ("C+A", "C+V", "C+Delay"), strict=True))
LLD_CATEGORY = {
    "hemangioma": 0, "icc": 1, "abscess": 2, "crc_metastasis": 3, "cyst": 4, "fnh": 5, "hcc": 6,
}  # fmt: skip


@cache
def lesion(index: int, class_id: str | None = None) -> Rendering:
    """The render that stands behind lesion `index` of every set here."""
    return render(draw(SEED, index, class_id))


def own_grids(rendering: Rendering) -> tuple[dict[str, Volume], dict[str, Box]]:
    """Each phase on a grid of its own: cut by another amount, with another frame of reference."""
    volumes, boxes = {}, {}
    for number, phase in enumerate(PHASES):
        whole, box = rendering.volumes[phase], rendering.boxes[phase]
        cut = np.array([number, 2 * number, 0])
        affine = whole.affine.copy()
        affine[:3, 3] = whole.world(cut) + 40.0 * number
        volumes[phase] = Volume.make(whole.data[number:, 2 * number :], affine)
        boxes[phase] = Box.make([np.array(box.lower) - cut, np.array(box.upper) - cut])
    return volumes, boxes


def unit_voxels(volume: Volume) -> Volume:
    """The volume with a header that lies: voxels of 1 mm."""
    affine = volume.affine.copy()
    affine[:3, :3] /= volume.spacing
    return Volume.make(volume.data, affine)


def write_lld(source: Path, classes: Sequence[str | None]) -> dict[str, Any]:
    """A set as LLD-MMRI is distributed, a patient a class; returns Annotation.json's content.

    Its headers say 1 mm; the true spacing is in the annotation, as are inclusive boxes.
    """
    table: dict[str, Any] = {}
    for index, class_id in enumerate(classes):
        patient = f"MR{100 + index}"
        rendering = lesion(index, class_id)
        volumes, boxes = own_grids(rendering)
        folder = source / "images" / patient / "1.2.3"
        folder.mkdir(parents=True)
        category = LLD_CATEGORY[class_id or draw(SEED, index).class_id]
        table[patient] = []
        for number, (phase, volume) in enumerate(volumes.items()):
            write_nifti(folder / f"1.2.3.{number}.nii.gz", unit_voxels(volume), np.int16)
            box, spacing = boxes[phase], [round(float(s), 4) for s in volume.spacing]
            ends = {
                **{f"{a}_min": v for a, v in zip("xyz", box.lower, strict=True)},
                **{f"{a}_max": v - 1 for a, v in zip("xyz", box.upper, strict=True)},
            }
            table[patient].append(
                {
                    "studyUID": "1.2.3",
                    "seriesUID": f"1.2.3.{number}",
                    "phase": LLD_PHASES[phase],
                    "pixel_spacing": spacing[:2],
                    "slice_thickness": spacing[2],
                    "annotation": {"lesion": {"0": {"category": category,
                                                    "bbox": {"3D_box": ends}}}},
                }
            )  # fmt: skip
        table[patient].append({"studyUID": "1.2.3", "seriesUID": "t2", "phase": "T2WI"})
    annotation = {"Annotation_info": table}
    save_annotation(source, annotation)
    return annotation


def save_annotation(source: Path, annotation: dict[str, Any]) -> None:
    (source / "labels").mkdir(parents=True, exist_ok=True)
    (source / "labels" / "Annotation.json").write_text(json.dumps(annotation))


def write_crops(source: Path, names: Sequence[str]) -> None:
    """classification_dataset/: crops as the challenge cuts them, five folds of one line each."""
    root = source / "classification_dataset"
    (root / "labels").mkdir(parents=True)
    lines = []
    for index, name in enumerate(names):
        rendering = lesion(index)
        (root / "images" / name).mkdir(parents=True)
        for phase, lld in LLD_PHASES.items():
            data = _crop(rendering.volumes[phase].data, rendering.boxes[phase])
            image = nib.Nifti1Image(data, np.diag([-1.0, -1.0, 1.0, 1.0]))
            nib.save(image, root / "images" / name / f"{lld}.nii.gz")
        lines.append(f"{name} {LLD_CATEGORY[draw(SEED, index).class_id]}")
    (root / "labels" / "labels.txt").write_text("\n".join(lines) + "\n")
    for fold in range(5):
        held = lines[fold :: 5]  # fmt: skip
        rest = [line for line in lines if line not in held]
        (root / "labels" / f"val_fold{fold + 1}.txt").write_text("\n".join(held) + "\n")
        (root / "labels" / f"train_fold{fold + 1}.txt").write_text("\n".join(rest) + "\n")


def _crop(data: np.ndarray, box: Box) -> np.ndarray:
    """As the challenge's crop_roi.py: 16 voxels and 2 slices around, zeros beyond the border."""
    x0, y0, z0 = box.lower
    x1, y1, z1 = (v - 1 for v in box.upper)  # its ends are inclusive
    padded = np.pad(data, ((16, 16), (16, 16), (0, 0)))
    return padded[x0 : x1 + 32, y0 : y1 + 32, max(z0 - 2, 0) : z1 + 3].astype(np.int16)


AMPLIFAI_CODE = dict(zip(PHASES, ("ART", "VEN", "DEL"), strict=True))
AMPLIFAI_FEATURE = {
    "arterial_hyperenhancement": "aphe", "washout": "washout", "enhancing_capsule": "capsule",
}  # fmt: skip


def hounsfield(volume: Volume) -> Volume:
    """Phantom intensities as CT numbers: signed, fat and air below zero."""
    return Volume.make(np.rint(volume.data / 4.0 - 200), volume.affine)


def write_amplifai(source: Path, labels: Sequence[str], tool: bool = False) -> None:
    """A folder a case in the distributed layout, or, by `tool`, as the annotation tool writes.

    Tool files are .seg.nrrd trimmed to what is drawn, in LPS, with the phase in the name.
    """
    source.mkdir(parents=True, exist_ok=True)
    rows = ["case_id,label"]
    for index, label in enumerate(labels):
        case = f"CASE{index + 1:05d}"
        rendering = lesion(index, "hcc")
        folder = source / case
        (folder if tool else folder / "ct").mkdir(parents=True)
        for number, phase in enumerate(PHASES):
            name = f"{case}_{number}" if tool else f"ct/{case}_{AMPLIFAI_CODE[phase]}"
            write_nifti(folder / f"{name}.nii.gz", hounsfield(rendering.volumes[phase]), np.int16)
        for mask_id, voxels in rendering.masks.items():
            word = {"lesion": "lesion", **AMPLIFAI_FEATURE}.get(mask_id)
            if word is None:
                continue
            affine = rendering.volumes[PHASES[0]].affine
            if tool:
                write_seg(folder / f"{case}_ART_{word}.seg.nrrd", voxels, affine)
            else:
                (folder / "annotations").mkdir(exist_ok=True)
                path = folder / "annotations" / f"{word}.nii.gz"
                write_nifti(path, Volume.make(voxels, affine), np.uint8)
        rows.append(f"{case},{label}")
    (source / "labels.csv").write_text("\n".join(rows) + "\n")


def write_seg(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """A mask as 3D Slicer saves it: trimmed to the segment, millimetres to the left and back."""
    filled = np.argwhere(voxels)
    low, high = filled.min(axis=0), filled.max(axis=0) + 1
    part = voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.uint8)
    lps = np.diag([-1.0, -1.0, 1.0])
    header = {
        "space": "left-posterior-superior",
        "space directions": (lps @ affine[:3, :3]).T,
        "space origin": lps @ (affine[:3, :3] @ low + affine[:3, 3]),
        "kinds": ["domain", "domain", "domain"],
        "encoding": "gzip",
    }
    nrrd.write(str(path), part, header)
