"""Preprocessing: geometry in millimetres, one unit of intensity, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from models.voi import Lesion, Preprocessing, extract, normalise, tensor
from models.volume import Box, Study, Volume

PHASES = ("arterial", "portal_venous", "delayed")
SPEC = Preprocessing()


def study(
    spacing: tuple[float, float, float] = (1.5, 1.5, 3.0),
    gain: float = 1.0,
    radius: float = 12.0,
    levels: tuple[float, float, float] = (160, 120, 80),
) -> Study:
    """A ball of another brightness in each phase, in parenchyma of 100 with a smooth gradient."""
    shape = tuple(int(96 / s) for s in spacing)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    blank = Volume.make(np.ones(shape), affine)
    centre = blank.world((np.array(shape) - 1) / 2)
    world = blank.world(grid)
    inside = np.linalg.norm(world - centre, axis=-1) <= radius
    noise = np.random.default_rng(3).normal(0, 1, (3, *shape))
    volumes = {}
    for p, level, n in zip(PHASES, levels, noise, strict=True):
        data = np.where(inside, level, 100 + 0.05 * (world[..., 0] - centre[0])) + n
        volumes[p] = Volume.make(data * gain, affine)
    middle = (np.array(shape) - 1) / 2
    half = radius / np.array(spacing)
    box = [np.floor(middle - half).astype(int).tolist(), np.ceil(middle + half + 1).astype(int)]
    return Study.make(volumes, Box.make([box[0], box[1].tolist()]), PHASES)


def test_the_lesion_lies_in_the_middle_with_its_size_in_millimetres() -> None:
    lesion = extract(study(), SPEC)
    assert lesion.voxels.shape == (3, 64, 64, 64)
    assert lesion.mm_per_voxel * 64 == pytest.approx(2 * max(lesion.size_mm))
    bright = np.argwhere(lesion.voxels[0] > 130)
    np.testing.assert_allclose(bright.mean(axis=0), 31.5, atol=1.0)
    edge = (np.ptp(bright, axis=0) + 1) * lesion.mm_per_voxel
    np.testing.assert_allclose(edge, 24, atol=3)  # never squeezed: the ball stays a ball


@settings(max_examples=8, deadline=None)
@given(st.floats(0.2, 50))
def test_the_scanner_gain_does_not_matter(gain: float) -> None:
    plain, scaled = (tensor(extract(study(gain=g), SPEC), SPEC) for g in (1.0, gain))
    np.testing.assert_allclose(plain, scaled, atol=2e-3)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([(1.0, 1.0, 2.0), (1.5, 1.5, 3.0), (1.2, 1.2, 4.0), (2.0, 2.0, 2.0)]))
def test_the_grid_does_not_matter_much(spacing: tuple[float, float, float]) -> None:
    x = tensor(extract(study(spacing), SPEC), SPEC)
    centre = x[:, 11:13, 11:13, 11:13].mean(axis=(1, 2, 3))
    # (level / parenchyma - 1) * gain: enhancement stays comparable between the phases.
    np.testing.assert_allclose(centre, [1.2, 0.4, -0.4], atol=0.1)


def test_zero_means_like_parenchyma() -> None:
    base = normalise(extract(study(), SPEC), SPEC)
    assert abs(float(np.median(base[:, 0]))) < 0.1


def test_the_same_study_gives_the_same_bytes_and_survives_storage() -> None:
    first, second = extract(study(), SPEC), extract(study(), SPEC)
    assert first.id == second.id
    back = Lesion.from_bytes(first.to_bytes())
    assert back.id == first.id
    np.testing.assert_array_equal(tensor(back, SPEC), tensor(first, SPEC))
    assert extract(study(radius=12.5), SPEC).id != first.id


def test_copies_of_a_phase_are_seen_and_independent_noise_is_not_a_copy() -> None:
    one = study()
    assert extract(one, SPEC).identical_phases == []
    copied = dict(one.volumes) | {"delayed": one.volumes["arterial"]}
    lesion = extract(Study.make(copied, one.boxes, PHASES), SPEC)
    assert lesion.identical_phases == [("arterial", "delayed")]


def test_a_region_without_content_is_refused() -> None:
    flat = Volume.make(np.full((20, 20, 20), 7.0), np.eye(4))
    empty = Study.make(dict.fromkeys(PHASES, flat), Box.make([[5, 5, 5], [9, 9, 9]]), PHASES)
    with pytest.raises(InputError) as refused:
        extract(empty, SPEC)
    assert refused.value.code == "no_contrast"


def test_a_lesion_of_another_grid_is_refused() -> None:
    small = extract(study(), Preprocessing(lesion_voxels=32, base_voxels=16))
    with pytest.raises(InputError, match="another grid"):
        normalise(small, SPEC)
