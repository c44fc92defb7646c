"""Preprocessing: geometry in millimetres, one unit of intensity, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from models import voi
from models.errors import InputError
from models.voi import Lesion, Preprocessing, extract, normalise, parenchyma, tensor, without
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
    small = extract(study(), Preprocessing(lesion_voxels=32, base_voxels=16, tensor_voxels=12))
    with pytest.raises(InputError, match="another grid"):
        normalise(small, SPEC)


def less(missing: tuple[str, ...]) -> Study:
    """The study without some of its phases."""
    one = study()
    kept = {p: v for p, v in one.volumes.items() if p not in missing}
    return Study.make(kept, {p: one.boxes[p] for p in kept}, PHASES, optional=PHASES)


ALONE = st.sets(st.sampled_from(PHASES), min_size=1, max_size=2).map(
    lambda s: tuple(p for p in PHASES if p in s)
)
INTENSITIES = ("parenchyma", "zscore", "minmax", "percentile")


@settings(max_examples=12, deadline=None)
@given(ALONE, st.sampled_from(INTENSITIES))
def test_what_is_missing_is_zero_and_the_rest_as_if_there_were_no_other_phases(
    missing: tuple[str, ...], intensity: str
) -> None:
    spec = Preprocessing(intensity=intensity)
    lesion = extract(less(missing), spec)
    assert lesion.phases == PHASES
    assert lesion.missing == missing
    base = normalise(lesion, spec)
    lost = [PHASES.index(p) for p in missing]
    assert not lesion.voxels[lost].any()
    assert not base[lost].any()
    kept = [p for p in PHASES if p not in missing]
    one = study()
    alone = Study.make(one.volumes, {p: one.boxes[p] for p in kept}, kept)
    np.testing.assert_array_equal(base[lesion.acquired], normalise(extract(alone, spec), spec))


@settings(max_examples=10, deadline=None)
@given(ALONE, st.sampled_from(INTENSITIES))
def test_phases_taken_from_a_base_leave_what_serving_would_see(
    missing: tuple[str, ...], intensity: str
) -> None:
    """Each phase has another parenchyma, so the unit of intensity changes with what is there."""
    spec = Preprocessing(intensity=intensity)
    one = study()
    bright = {
        p: Volume(v.data * gain, v.affine)
        for (p, v), gain in zip(one.volumes.items(), (0.7, 1.2, 1.0), strict=True)
    }
    full = normalise(extract(Study.make(bright, one.boxes, PHASES), spec), spec)
    before = full.copy()
    taken = without(full, [PHASES.index(p) for p in missing], spec)
    kept = {p: v for p, v in bright.items() if p not in missing}
    part = Study.make(kept, {p: one.boxes[p] for p in kept}, PHASES, PHASES)
    np.testing.assert_allclose(taken, normalise(extract(part, spec), spec), atol=0.04)
    np.testing.assert_array_equal(full, before)
    np.testing.assert_array_equal(without(full, [], spec), full)


def test_a_complete_lesion_is_the_same_whether_or_not_a_phase_might_be_missing() -> None:
    plain, lenient = extract(study(), SPEC), extract(less(()), SPEC)
    assert lenient.id == plain.id
    assert lenient.to_bytes() == plain.to_bytes()
    assert b"missing" not in plain.to_bytes()


def test_missing_phases_survive_storage_and_tell_lesions_apart() -> None:
    lesion = extract(less(("delayed",)), SPEC)
    back = Lesion.from_bytes(lesion.to_bytes())
    assert back.missing == ("delayed",)
    assert back.id == lesion.id
    black = Lesion(
        lesion.voxels, PHASES, lesion.mm_per_voxel, lesion.size_mm, lesion.slices
    )  # the same voxels, but a black image was acquired
    assert black.id != lesion.id
    np.testing.assert_array_equal(tensor(back, SPEC), tensor(lesion, SPEC))


def test_two_missing_phases_are_no_copies_of_each_other() -> None:
    assert extract(less(PHASES[1:]), SPEC).identical_phases == []


def test_the_slice_count_is_that_of_the_acquired_phases() -> None:
    assert extract(less(("arterial",)), SPEC).slices == 32


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_intensity_modes_are_what_they_say(intensity: str) -> None:
    """Against the definitions, voxel by voxel, on raw means of blocks."""
    spec = Preprocessing(intensity=intensity, percentile_low=5, percentile_high=90)
    lesion = extract(study(levels=(300, 120, 20)), spec)
    base = normalise(lesion, spec).astype(np.float64)
    raw = lesion.voxels.reshape(3, 32, 2, 32, 2, 32, 2).mean(axis=(2, 4, 6), dtype=np.float64)
    for plane, x in zip(base, raw, strict=True):
        if intensity == "zscore":
            expected = np.clip((x - x.mean()) / x.std(), -6, 6)
        elif intensity == "minmax":
            expected = (x - x.min()) / (x.max() - x.min())
            assert (plane.min(), plane.max()) == (0, 1)
        elif intensity == "percentile":
            low, high = np.percentile(x, [5, 90])
            expected = np.clip((x - low) / (high - low), 0, 1)
            assert np.mean(plane == 0) == pytest.approx(0.05, abs=0.01)
            assert np.mean(plane == 1) == pytest.approx(0.10, abs=0.01)
        else:
            expected = np.clip((x / parenchyma(lesion) - 1) * 2, -6, 6)
        np.testing.assert_allclose(plane, expected, atol=1e-5)


@pytest.mark.parametrize("intensity", INTENSITIES[1:])
def test_a_phase_of_one_value_is_zero_not_a_division_by_zero(intensity: str) -> None:
    one = study()
    flat = Volume.make(np.full(one.volumes["delayed"].shape, 55.0), one.volumes["delayed"].affine)
    spec = Preprocessing(intensity=intensity)
    base = normalise(
        extract(Study.make({**one.volumes, "delayed": flat}, one.boxes, PHASES), spec), spec
    )
    assert not base[2].any()
    assert base[0].any()


@pytest.mark.parametrize(
    ("lesion_voxels", "base_voxels", "tensor_voxels"), [(64, 64, 64), (96, 48, 40), (32, 32, 32)]
)
def test_other_input_sizes(lesion_voxels: int, base_voxels: int, tensor_voxels: int) -> None:
    spec = Preprocessing(
        lesion_voxels=lesion_voxels, base_voxels=base_voxels, tensor_voxels=tensor_voxels
    )
    lesion = extract(study(), spec)
    base = normalise(lesion, spec)
    x = tensor(lesion, spec)
    assert x.shape == spec.shape(3) == (3, *(tensor_voxels,) * 3)
    cut = (base_voxels - tensor_voxels) // 2
    np.testing.assert_array_equal(x[:, 0, 0, 0], base[:, cut, cut, cut])
    middle = slice(tensor_voxels // 2 - 1, tensor_voxels // 2 + 1)
    centre = x[:, middle, middle, middle].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(centre, [1.2, 0.4, -0.4], atol=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_voxels": 30},
        {"tensor_voxels": 40},
        {"tensor_voxels": 25},
        {"intensity": "histogram"},
        {"percentile_low": 60, "percentile_high": 40},
        {"gain": 0},
    ],
)
def test_parameters_that_cannot_be_are_refused(wrong: dict[str, float | str]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate(wrong)


@given(
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    steps=st.tuples(*[st.floats(0.05, 2).flatmap(lambda v: st.sampled_from([v, -v]))] * 3),
    start=st.tuples(*[st.floats(-6, 15)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_sampling_axis_by_axis_is_sampling(
    seed: int,
    shape: tuple[int, int, int],
    steps: tuple[float, float, float],
    start: tuple[float, float, float],
) -> None:
    """Against scipy's general way, flipped, thin and far outside of the image."""
    source = np.random.default_rng(seed).normal(300, 100, shape).astype(np.float32)
    matrix = np.diag(steps)
    general = ndimage.affine_transform(
        source, matrix, offset=start, output_shape=(7, 7, 7), order=1, mode="nearest"
    )
    found = voi._sampled(source, matrix, np.array(start), 7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, general, rtol=1e-6, atol=1e-4)


def test_an_oblique_image_is_sampled_the_general_way() -> None:
    source = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
    turned = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1.0]]) * 0.5
    start = np.array([2.0, 3.0, 1.0])
    found = voi._sampled(source, turned, start, 5)
    place = turned @ [1, 2, 3] + start
    wanted = ndimage.map_coordinates(source, place[:, None], order=1, mode="nearest")
    assert found[1, 2, 3] == pytest.approx(wanted[0])


@pytest.mark.parametrize("missing", [(), ("delayed",)])
@pytest.mark.parametrize("level", [100.0, 0.0])
def test_the_unit_and_the_averages_are_numpys(missing: tuple[str, ...], level: float) -> None:
    lesion = extract(study(), SPEC)
    voxels = np.round(lesion.voxels + np.float32(level - 100), 2)
    if missing:
        voxels[2] = 0
    lesion = Lesion(**{**vars(lesion), "voxels": voxels, "missing": missing})
    half = [int(np.sum(np.abs(np.arange(64) - 31.5) * lesion.mm_per_voxel <= 0.6 * edge))
            for edge in lesion.size_mm]  # fmt: skip
    shell = np.ones((64, 64, 64), bool)
    shell[tuple(slice(32 - h // 2, 32 + h // 2) for h in half)] = False
    acquired = voxels[:2] if missing else voxels
    unit, spread = float(np.median(acquired[:, shell])), float(np.std(acquired))
    assert parenchyma(lesion) == (unit if abs(unit) > 0.05 * spread else spread)
    means = voxels.reshape(3, 32, 2, 32, 2, 32, 2).mean(axis=(2, 4, 6), dtype=np.float64)
    expected = np.clip((means / abs(parenchyma(lesion)) - 1) * SPEC.gain, -SPEC.clip, SPEC.clip)
    if missing:
        expected[2] = 0
    np.testing.assert_array_equal(normalise(lesion, SPEC), expected.astype(np.float32))
