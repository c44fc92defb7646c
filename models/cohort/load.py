"""From a cohort's lesion to a study, to a canonical lesion, to its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cohort.format import Cohort
from models.cohort.nifti import read_nifti
from models.errors import InputError, LensError
from models.voi import Lesion, Preprocessing, extract
from models.volume import Box, Study, Volume
from wire.cohort import CohortLesion


@dataclass(frozen=True)
class Mask:
    """A mask on the grid of the phase that it was drawn on. voxels: bool [X, Y, Z]."""

    phase: str
    voxels: NDArray[np.bool_]


def load_study(
    cohort: Cohort,
    lesion: CohortLesion,
    phases: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> Study:
    """Read the lesion's phases, each on its own grid, with its box.

    phases: those wanted, of which only `optional` ones may be missing from the lesion; by default
    the cohort's own, of which any may be. Raises InputError; its field names the lesion too.
    """
    wanted = list(phases or cohort.file.phases)
    optional = optional if phases else wanted
    with _naming(lesion):
        volumes = {
            phase: read_nifti(cohort.root / lesion.image[phase], field=f"image.{phase}")
            for phase in wanted
            if phase in lesion.image
        }
        boxes = {p: Box.make(lesion.voi[p], field=f"voi.{p}") for p in wanted if p in lesion.voi}
        return Study.make(volumes, boxes, wanted, optional)


def load_lesion(
    cohort: Cohort,
    lesion: CohortLesion,
    phases: Sequence[str] | None,
    spec: Preprocessing,
    optional: Sequence[str] = (),
) -> Lesion:
    """Read as load_study does and resample: the canonical lesion, see models.voi.extract."""
    study = load_study(cohort, lesion, phases, optional)
    with _naming(lesion):
        return extract(study, spec)


def load_mask(cohort: Cohort, lesion: CohortLesion, name: str, study: Study) -> Mask:
    """Read one mask ('lesion' or a feature id) and find the phase whose grid it lies on.

    Raises InputError where the lesion has no such mask or it lies on no phase's grid.
    """
    field = f"masks.{name}"
    with _naming(lesion):
        if name not in lesion.masks:
            raise InputError("no such mask", code="missing_mask", field=field)
        volume = read_nifti(cohort.root / lesion.masks[name], field=field)
        return Mask(matching_phase(volume, study, field), volume.data > 0.5)


def matching_phase(mask: Volume, study: Study, field: str) -> str:
    """The first phase with the mask's shape and affine. Raises InputError where there is none."""
    for phase, volume in study.volumes.items():
        if volume.shape == mask.shape and np.allclose(volume.affine, mask.affine, atol=1e-3):
            return phase
    grids = sorted({str(list(v.shape)) for v in study.volumes.values()})
    same = any(v.shape == mask.shape for v in study.volumes.values())
    raise InputError(
        "the mask does not lie on the grid of any phase",
        code="wrong_grid",
        field=field,
        found=f"shape {list(mask.shape)}" + (" with another affine" if same else ""),
        expected=f"shape {' or '.join(grids)} and the same affine",
    )


class _naming:  # noqa: N801 - reads as a word: with _naming(lesion)
    """Puts the lesion's id in front of the field of an error that passes through."""

    def __init__(self, lesion: CohortLesion) -> None:
        self._prefix = f"lesion {lesion.lesion_id}: "

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LensError) and not (error.field or "").startswith("lesion "):
            error.field = self._prefix + (error.field or "voi")
