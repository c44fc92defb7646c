"""Alignment on blobs whose true places are known in millimetres."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from models.cohort.importers.align import align
from models.cohort.importers.base import Reading, box_of, centroid_mm
from models.cohort.load import Mask
from models.errors import InputError
from models.voi import Preprocessing
from models.volume import Box, Volume

CENTRE = np.array([10.0, -20.0, 30.0])
RADIUS = 9.0


def grid(
    spacing: tuple[float, float, float] = (1.5, 1.5, 3.0),
    turn: tuple[float, float, float] = (0, 0, 0),
    flips: tuple[int, int, int] = (1, 1, 1),
    edge: float = 110.0,
    centre: NDArray = CENTRE,
) -> tuple[tuple[int, int, int], NDArray]:
    """Shape and affine of a cube of voxels around `centre`."""
    shape = tuple(round(edge / s) for s in spacing)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag(
        np.multiply(spacing, flips)
    )
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return shape, affine  # type: ignore[return-value]


def world_of(shape: tuple[int, ...], affine: NDArray) -> NDArray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def phase(
    shape: tuple[int, int, int], affine: NDArray, moved: NDArray, turned: NDArray | None = None
) -> tuple[Volume, NDArray[np.bool_]]:
    """A blob at CENTRE + moved over a smooth pattern that moves (and turns) with it; its mask."""
    where = world_of(shape, affine) - (CENTRE + moved)
    if turned is not None:
        where = where @ turned
    pattern = (
        100 + 15 * np.sin(where @ [0.11, 0.03, 0.02]) + 10 * np.cos(where @ [0.02, 0.13, 0.05])
    )
    pattern += 8 * np.sin(where @ [0.03, 0.05, 0.17])
    distance = np.linalg.norm(where * [1, 1, 0.8], axis=-1)
    data = pattern + 300 / (1 + np.exp((distance - RADIUS) / 0.8))
    return Volume.make(data, affine), distance < RADIUS


def reading(grids: dict[str, tuple], moved: dict[str, NDArray], boxed: tuple[str, ...]) -> Reading:
    volumes, masks = {}, {}
    for name, (shape, affine) in grids.items():
        volumes[name], masks[name] = phase(shape, affine, moved.get(name, np.zeros(3)))
    first = boxed[0]
    return Reading(
        volumes,
        {p: box_of(masks[p]) for p in boxed},
        {"lesion": Mask(first, masks[first])},
        {p: centroid_mm(masks[p], volumes[p]) for p in boxed},
    )


def blob_mm(volume: Volume) -> NDArray:
    """Centre of the blob: the pattern under it is too weak to pull at its half height."""
    weight = np.clip(volume.data - 200, 0, 100)
    index = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
    return volume.world((index * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum())


GRIDS = {
    "arterial": grid(),
    "portal_venous": grid((1.2, 1.2, 2.5), turn=(4, -3, 6), flips=(-1, -1, 1)),
    "delayed": grid((1.0, 1.0, 5.0), flips=(1, -1, 1), centre=CENTRE + 6),
}
MOVED = {"portal_venous": np.array([3.0, -5.0, 8.0]), "delayed": np.array([-4.0, 2.0, -9.0])}
LATE = tuple(MOVED)


@pytest.mark.parametrize("mode", ["box", "mask"])
def test_lesions_that_breathing_moved_come_together(mode: str) -> None:
    aligned = align(reading(GRIDS, MOVED, tuple(GRIDS)), mode)  # type: ignore[arg-type]
    home = blob_mm(aligned.volumes["arterial"])
    np.testing.assert_allclose(home, CENTRE, atol=0.3)
    # A box's faces lie on voxels, so its centre is known to half a voxel; a centroid is finer.
    tolerance = {"box": [0.8, 0.8, 2.6], "mask": [0.3, 0.3, 0.4]}[mode]
    for late in LATE:
        assert (np.abs(blob_mm(aligned.volumes[late]) - home) < tolerance).all()
        assert (np.abs(aligned.shifts_mm[late] - MOVED[late]) < tolerance).all()
    assert len({v.shape for v in aligned.volumes.values()}) == 1
    assert len({v.affine.tobytes() for v in aligned.volumes.values()}) == 1
    centres = [box.centre for box in aligned.boxes.values()]
    np.testing.assert_array_equal(centres[1:], [centres[0]] * 2)


def test_scanner_coordinates_are_believed_on_request() -> None:
    aligned = align(reading(GRIDS, MOVED, tuple(GRIDS)), "scanner")
    for late, shift in MOVED.items():
        np.testing.assert_allclose(blob_mm(aligned.volumes[late]) - CENTRE, shift, atol=0.4)
        box = aligned.boxes[late]
        voxel = aligned.volumes[late].index(CENTRE + shift)
        assert (np.abs(box.centre - voxel) <= 1.01).all()
        assert aligned.shifts_mm[late] == [0, 0, 0]


def test_a_phase_without_a_box_lies_where_the_anchor_lies() -> None:
    aligned = align(reading(GRIDS, {}, ("portal_venous",)), "box")
    assert set(aligned.boxes) == set(GRIDS)
    assert len(set(map(str, aligned.boxes.values()))) == 1
    # The grid is that of the phase that has the box.
    spacing = aligned.volumes["arterial"].spacing
    np.testing.assert_allclose(spacing, [1.2, 1.2, 2.5], atol=1e-4)
    for volume in aligned.volumes.values():
        np.testing.assert_allclose(blob_mm(volume), CENTRE, atol=0.4)


def test_the_reference_phase_is_cut_and_not_interpolated() -> None:
    given = reading(GRIDS, MOVED, tuple(GRIDS))
    aligned = align(given, "box")
    source, made = given.volumes["arterial"], aligned.volumes["arterial"]
    first = np.round(source.index(made.affine[:3, 3])).astype(int)
    part = tuple(slice(a, a + n) for a, n in zip(first, made.shape, strict=True))
    np.testing.assert_array_equal(made.data, source.data[part])
    np.testing.assert_array_equal(aligned.masks["lesion"], given.masks["lesion"].voxels[part])
    before = given.boxes["arterial"]
    np.testing.assert_array_equal(np.array(before.lower) - first, aligned.boxes["arterial"].lower)


@settings(max_examples=15, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.9, 4)] * 3),
    turn=st.tuples(*[st.floats(-30, 30)] * 3),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    margin=st.floats(1, 2),
)
def test_the_crop_holds_the_field_of_view(
    spacing: tuple[float, float, float],
    turn: tuple[float, float, float],
    flips: tuple[int, int, int],
    margin: float,
) -> None:
    """Whatever the voxels and the orientation, models.voi finds its whole cube in the crop."""
    shape, affine = grid(spacing, turn, flips, edge=150)
    given = reading({"arterial": (shape, affine)}, {}, ("arterial",))
    aligned = align(given, "box", margin)
    volume, box = aligned.volumes["arterial"], aligned.boxes["arterial"]
    size = np.abs(volume.affine[:3, :3] * box.edges).sum(axis=1).max()
    spec = Preprocessing()
    half = max(size * spec.context, spec.min_fov_mm) / 2
    corners = volume.world(box.centre) + half * (
        np.stack(np.meshgrid(*[(-1, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    )
    there = volume.index(corners)
    # Half a voxel: a rotated box of voxels is larger in patient axes than the one it came from.
    room = there.min(axis=0) >= -0.51, there.max(axis=0) <= np.array(volume.shape) - 0.49
    first = given.volumes["arterial"].index(volume.affine[:3, 3])
    at_border = np.abs(first) < 0.01, np.abs(first + volume.shape - shape) < 0.01
    assert (room[0] | at_border[0]).all()
    assert (room[1] | at_border[1]).all()


def test_a_lesion_at_the_border_keeps_its_box() -> None:
    shape, affine = grid(centre=CENTRE + np.array([48, 0, 0]))
    aligned = align(reading({"arterial": (shape, affine)}, {}, ("arterial",)))
    box, volume = aligned.boxes["arterial"], aligned.volumes["arterial"]
    box.check_inside(volume.shape)
    assert box.lower[0] == 0


def test_registration_turns_back_what_was_turned() -> None:
    pytest.importorskip("SimpleITK")
    shape, affine = grid()
    turned = Rotation.from_euler("z", 8, degrees=True).as_matrix()
    moved = np.array([4.0, 3.0, -5.0])
    fixed, mask = phase(shape, affine, np.zeros(3))
    moving, other = phase(shape, affine, moved, turned)
    given = Reading(
        {"arterial": fixed, "delayed": moving},
        {"arterial": box_of(mask), "delayed": box_of(other)},
        {"lesion": Mask("arterial", mask)},
    )

    def apart(mode: str) -> float:
        made = align(given, mode)  # type: ignore[arg-type]
        assert made.boxes["arterial"] == made.boxes["delayed"] or mode != "rigid"
        pair = made.volumes["arterial"].data, made.volumes["delayed"].data
        return float(np.abs(pair[0] - pair[1]).mean())

    assert apart("rigid") < 0.5 * apart("box") < apart("scanner")
    one, two = align(given, "rigid"), align(given, "rigid")
    np.testing.assert_array_equal(one.volumes["delayed"].data, two.volumes["delayed"].data)


def test_registration_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ModuleNotFoundError):
        align(reading(GRIDS, {}, ("arterial",)), "rigid")


def elsewhere(given: Reading) -> dict[str, Volume]:
    """The delayed phase 900 mm away, as in another frame of reference."""
    affine = given.volumes["delayed"].affine.copy()
    affine[:3, 3] += 900
    return {**given.volumes, "delayed": Volume(given.volumes["delayed"].data, affine)}


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda r: {"boxes": {}}, "wrong_box"),
        (lambda r: {"boxes": {"arterial": Box((0, 0, 0), (500, 5, 5))}}, "box_outside"),
        (
            lambda r: {"volumes": elsewhere(r), "boxes": {"arterial": r.boxes["arterial"]}},
            "phase_elsewhere",
        ),
    ],
)
def test_what_cannot_be_aligned(spoil: Callable[[Reading], dict], code: str) -> None:
    given = reading(GRIDS, {}, tuple(GRIDS))
    with pytest.raises(InputError) as caught:
        align(Reading(**{**vars(given), **spoil(given)}), "box")
    assert caught.value.code == code


def test_a_mask_that_vanishes_is_told() -> None:
    given = reading(GRIDS, {}, tuple(GRIDS))
    tiny = np.zeros(given.volumes["delayed"].shape, dtype=bool)
    tiny[50, 50, 10] = True
    aligned = align(Reading(**{**vars(given), "masks": {"washout": Mask("delayed", tiny)}}))
    assert "washout" not in aligned.masks
    assert any(note.startswith("masks.washout: too small") for note in aligned.notes)
