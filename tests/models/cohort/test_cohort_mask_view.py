"""Masks on the network's grid lie where the image's voxels lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.cohort.format import read_cohort
from models.cohort.load import load_study
from models.cohort.mask_view import mask_view, view_masks
from models.errors import InputError
from models.voi import Preprocessing, centre, extract, normalise
from models.volume import Box, Study, Volume

SPEC = Preprocessing()


def block(spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, Box]:
    """A bright block off the middle of a box, on an anisotropic grid with flipped axes."""
    shape = tuple(int(90 / s) for s in spacing)
    data = np.full(shape, 100.0, np.float32)
    low = [int(30 / s) for s in spacing]
    high = [int(60 / s) for s in spacing]
    inner = tuple(slice(a, a + (b - a) // 2) for a, b in zip(low, high, strict=True))
    mask = np.zeros(shape, np.float32)
    mask[inner] = 1
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    return data + 150 * mask, mask, Box.make([low, high]), affine  # type: ignore[return-value]


@pytest.mark.parametrize("spacing", [(1.2, 1.2, 3.0), (1.5, 1.5, 1.5), (0.9, 1.4, 4.0)])
def test_what_is_bright_in_the_view_is_in_the_mask(spacing: tuple[float, float, float]) -> None:
    image, mask, box, affine = block(spacing)  # type: ignore[misc]
    study = Study.make({"p": Volume.make(image, affine)}, {"p": box}, ["p"])
    lesion = extract(study, SPEC)
    x = centre(normalise(lesion, SPEC), SPEC)[0]
    covered = mask_view(Volume.make(mask, affine), box, lesion.size_mm, SPEC)
    assert covered.shape == x.shape
    assert 0 <= covered.min() <= covered.max() <= 1
    assert np.corrcoef(covered.ravel(), x.ravel())[0, 1] > 0.97
    # Volume is kept: voxels of the view are as large as the field of view says.
    step = max(max(lesion.size_mm) * SPEC.context, SPEC.min_fov_mm) / SPEC.base_voxels
    assert covered.sum() * step**3 == pytest.approx(mask.sum() * np.prod(spacing), rel=0.1)


def test_masks_of_a_cohort_lie_in_its_lesions(tiny_cohort: Path) -> None:
    cohort = read_cohort(tiny_cohort)
    for entry in cohort.lesions("validation")[:4]:
        size = extract(load_study(cohort, entry), SPEC).size_mm
        masks = view_masks(cohort, entry, size, SPEC)
        assert set(masks) == set(entry.masks)
        assert masks["lesion"].sum() > 100
        # The lesion stands in the middle, within its box of half the field of view.
        where = np.argwhere(masks["lesion"]).mean(axis=0)
        assert np.abs(where - 11.5).max() < 3


def test_an_unreadable_mask_names_the_lesion(tiny_cohort: Path, tmp_path: Path) -> None:
    cohort = read_cohort(tiny_cohort)
    entry = cohort.lesions("validation")[0]
    bad = entry.model_copy(update={"masks": {"lesion": "nowhere.nii.gz"}})
    with pytest.raises(InputError) as raised:
        view_masks(cohort, bad, (20, 20, 20), SPEC)
    assert entry.lesion_id in str(raised.value.field)
