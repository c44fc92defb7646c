"""A cohort of three lesions, small enough to be written for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.cohort.format import Cohort, write_cohort
from models.cohort.nifti import write_nifti
from models.volume import Volume
from wire.cohort import CohortFile, CohortLesion

PHASES = ["arterial", "portal_venous", "delayed"]
BOX = [[4, 5, 2], [12, 13, 8]]


def make_volume(rng: np.random.Generator, phase: str) -> Volume:
    """Noise on a bright ground; the delayed phase has a grid of its own."""
    shape = (16, 18, 10) if phase != "delayed" else (18, 18, 10)
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    affine[:3, 3] = (-20, 10, 5)
    return Volume.make(rng.normal(200, 20, size=shape), affine)


def make_mask(volume: Volume) -> Volume:
    data = np.zeros(volume.shape, dtype=np.float32)
    data[5:11, 6:12, 3:7] = 1
    return Volume.make(data, volume.affine)


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Cohort]:
    """Write a cohort; `edit(file)` may spoil it before cohort.json is written."""

    def make(edit: Callable[[CohortFile], object] | None = None, root: Path = tmp_path) -> Cohort:
        splits: dict[str, list[CohortLesion]] = {}
        for number, split in enumerate(("training", "validation", "test")):
            rng = np.random.default_rng(number)
            image, masks, lesion_id = {}, {}, f"L{number}"
            for phase in PHASES:
                volume = make_volume(rng, phase)
                image[phase] = f"{lesion_id}_{phase}.nii.gz"
                write_nifti(root / image[phase], volume)
                if phase == "arterial":
                    masks = {"lesion": f"{lesion_id}_lesion.nii.gz"}
                    write_nifti(root / masks["lesion"], make_mask(volume), np.uint8)
            splits[split] = [
                CohortLesion.model_validate(
                    {
                        "lesion_id": lesion_id,
                        "patient_id": f"P{number}",
                        "class": "hcc",
                        "image": image,
                        "voi": dict.fromkeys(PHASES, BOX),
                        "features": {"washout": "present"},
                        "masks": masks,
                    }
                )
            ]
        file = CohortFile(
            name="small",
            version="1",
            licence="CC0-1.0",
            synthetic=True,
            phases=PHASES,
            classes=["hcc", "cyst"],
            features=["washout", "thin_walled"],
            **splits,
        )
        if edit:
            edit(file)
        return write_cohort(root, file)

    return make
