"""The deep check of a cohort: every file opened, every voxel seen, each fault in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from models.cohort.format import Cohort
from models.cohort.load import matching_phase
from models.cohort.nifti import read_nifti
from models.errors import InputError
from models.volume import Box, Study, Volume
from wire.cohort import CohortLesion

Progress = Callable[[int, int], None]


def check_files(cohort: Cohort, progress: Progress | None = None) -> list[str]:
    """Faults of the images, boxes and masks, each as 'lesion <id>: <field>: ...'.

    Images must be readable, finite and hold content; a box must lie inside its image; a mask must
    be of zeros and ones on the grid of one of the phases, not empty where its feature is present,
    empty or left out where it is absent, and the lesion's mask must meet its box.
    progress(done, total) is called after each lesion.
    """
    lesions = cohort.everything
    faults: list[str] = []
    for done, lesion in enumerate(lesions, start=1):
        faults += [f"lesion {lesion.lesion_id}: {text}" for text in lesion_faults(cohort, lesion)]
        if progress:
            progress(done, len(lesions))
    return faults


def lesion_faults(cohort: Cohort, lesion: CohortLesion) -> Iterator[str]:
    """Faults of one lesion, each as '<field>: ...'."""
    volumes: dict[str, Volume] = {}
    boxes: dict[str, Box] = {}
    for phase, path in lesion.image.items():
        try:
            volumes[phase] = volume = read_nifti(cohort.root / path, field=f"image.{phase}")
            if float(np.ptp(volume.data)) == 0:
                yield f"image.{phase}: one single value, {float(volume.data.flat[0]):g}, everywhere"
            boxes[phase] = Box.make(lesion.voi[phase], field=f"voi.{phase}")
            boxes[phase].check_inside(volume.shape, field=f"voi.{phase}")
        except InputError as error:
            boxes.pop(phase, None)
            yield error.line
    study = Study(volumes, boxes)
    for name, path in lesion.masks.items():
        try:
            mask = read_nifti(cohort.root / path, field=f"masks.{name}")
            phase = matching_phase(mask, study, f"masks.{name}") if volumes else ""
        except InputError as error:
            yield error.line
            continue
        yield from (f"masks.{name}: {text}" for text in _mask_faults(lesion, name, mask))
        if name == "lesion" and phase in boxes:
            box = boxes[phase]
            inside = tuple(slice(a, b) for a, b in zip(box.lower, box.upper, strict=True))
            if mask.data.any() and not mask.data[inside].any():
                yield f"masks.lesion: no voxel inside voi.{phase}"


def _mask_faults(lesion: CohortLesion, name: str, mask: Volume) -> Iterator[str]:
    values = np.unique(mask.data)
    if not np.isin(values, (0, 1)).all():
        shown = ", ".join(f"{v:g}" for v in values[:4])
        yield f"found values {shown}{', ...' if len(values) > 4 else ''}; expected 0 and 1"
        return
    filled = bool(mask.data.any())
    status = lesion.features.get(name, "present" if name == "lesion" else "ignore")
    if status == "present" and not filled:
        what = "the lesion's mask" if name == "lesion" else "the feature is present, its mask"
        yield f"{what} is empty"
    if status == "absent" and filled:
        yield f"the feature is absent, its mask holds {int(mask.data.sum())} voxels"
