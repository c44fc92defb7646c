"""Rendering: determinism, causal truth of every feature, masks and boxes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from models.cohort.phantom import PHASES, LesionSpec, draw, render
from models.cohort.phantom.profiles import FEATURES


@cache
def lesion_with(feature: str, place: int = 0) -> LesionSpec:
    """The `place`-th lesion of a fixed cohort that has the feature, of middling size."""
    found = 0
    for index in range(5000):
        spec = draw(21, index)
        if feature in spec.features and spec.form.diameter_mm < 36:
            if found == place:
                return spec
            found += 1
    raise AssertionError(f"no lesion with {feature}")


def grown(mask: np.ndarray, spec: LesionSpec) -> np.ndarray:
    """Dilated by the scanner's reach: displacement of the phases, blur (two voxels), and one voxel
    for what a structure covers too little of to be in its mask."""
    drift = np.array(list(spec.shifts.values())) / spec.scanner.spacing
    reach = np.ceil(np.abs(drift).max(axis=0)).astype(int) + 3
    return ndimage.maximum_filter(mask, size=tuple(2 * reach + 1))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_renders_are_equal_bit_for_bit(seed: int, index: int) -> None:
    first, second = render(draw(seed, index)), render(draw(seed, index))
    for p in PHASES:
        assert first.volumes[p].data.tobytes() == second.volumes[p].data.tobytes()
    assert first.boxes == second.boxes
    assert all((first.masks[k] == second.masks[k]).all() for k in first.masks)


def check_truth(spec: LesionSpec, feature: str) -> None:
    """Off differs from on inside the feature's dilated mask, and outside not in one bit."""
    on, off = render(spec), render(spec.without(feature))
    outside = ~grown(on.masks[feature], spec)
    assert outside.any()
    moved = np.zeros(spec.shape, bool)
    for p in PHASES:
        difference = np.abs(on.volumes[p].data - off.volumes[p].data)
        # The same noise in both: outside, voxels are the same to the last bit.
        assert difference[outside].max() == 0, p
        moved |= difference > 0.03 * spec.scanner.gain
    assert moved.sum() >= 0.3 * on.masks[feature].sum()
    assert feature not in off.masks
    assert on.boxes == off.boxes


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("feature", FEATURES)
def test_switching_a_feature_off_changes_its_dilated_mask_alone(feature: str, place: int) -> None:
    check_truth(lesion_with(feature, place), feature)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.data())
def test_the_same_of_any_lesion(seed: int, index: int, data: st.DataObject) -> None:
    spec = draw(seed, index)
    check_truth(spec, data.draw(st.sampled_from(sorted(spec.features))))


@pytest.mark.parametrize("feature", FEATURES)
def test_a_stronger_feature_changes_more(feature: str) -> None:
    spec = lesion_with(feature)
    off = render(spec.without(feature), noise=False)
    change = []
    for strength in (0.35, 1.0):
        on = render(spec.with_strength(feature, strength), noise=False)
        change.append(sum(np.abs(on.volumes[p].data - off.volumes[p].data).sum() for p in PHASES))
    assert 0 < 1.15 * change[0] < change[1]


def level(spec: LesionSpec, feature: str, phase: str) -> float:
    """Mean signal inside the feature's mask over unenhanced parenchyma, without noise."""
    rendering = render(spec, noise=False)
    mask = render(lesion_with(feature)).masks[feature]
    inner = ndimage.binary_erosion(mask)
    inner = inner if inner.sum() > 30 else mask
    return float(rendering.volumes[phase].data[inner].mean() / spec.scanner.gain)


@pytest.mark.parametrize(
    ("feature", "phase", "sign"),
    [
        ("arterial_hyperenhancement", "arterial", 1),
        ("washout", "delayed", -1),
        ("enhancing_capsule", "delayed", 1),
        ("central_scar", "arterial", -1),
        ("nodular_peripheral_enhancement", "arterial", 1),
        ("progressive_centripetal_filling", "portal_venous", 1),
        ("progressive_enhancement", "delayed", 1),
        ("delayed_hyperenhancement", "delayed", 1),
        ("hypoenhancing_core", "portal_venous", -1),
        ("thin_walled", "arterial", 1),
    ],
)
def test_the_feature_does_what_its_name_says(feature: str, phase: str, sign: int) -> None:
    spec = lesion_with(feature)
    change = level(spec, feature, phase) - level(spec.without(feature), feature, phase)
    assert sign * change > 0.04


def test_isointense_means_like_parenchyma() -> None:
    spec = lesion_with("isointense_late").with_strength("isointense_late", 1.0)
    liver = spec.scanner.perfusion.liver(spec.scanner.times["delayed"])
    off = level(spec.without("isointense_late"), "isointense_late", "delayed") / liver
    on = level(spec, "isointense_late", "delayed") / liver
    assert abs(on - 1) < abs(off - 1)
    assert abs(on - 1) < 0.06


def test_boxes_hold_the_lesion_and_lie_inside() -> None:
    for index in range(12):
        spec = draw(22, index)
        rendering = render(spec)
        lesion = rendering.masks["lesion"]
        box = rendering.boxes["arterial"]
        cut = tuple(slice(a, b) for a, b in zip(box.lower, box.upper, strict=True))
        assert lesion[cut].sum() == lesion.sum() > 0
        edges = box.edges * spec.scanner.spacing
        assert 10 < edges.max() < 90
        for p in PHASES:
            rendering.boxes[p].check_inside(rendering.volumes[p].shape)


def test_volumes_are_axial_whole_numbers_of_16_bits() -> None:
    spec = draw(1, 0)
    for volume in render(spec).volumes.values():
        assert np.sign(np.diag(volume.affine)).tolist() == [-1, -1, 1, 1]
        assert np.allclose(volume.spacing, spec.scanner.spacing, atol=1e-6)
        assert (volume.data == np.rint(volume.data)).all()
        assert volume.data.min() >= 0
        assert volume.data.max() < 32768


def test_noise_is_rician_and_independent_between_phases() -> None:
    spec = draw(1, 3)
    clean, noisy = render(spec, noise=False), render(spec)
    noise = [(noisy.volumes[p].data - clean.volumes[p].data).ravel() for p in PHASES]
    for n in noise:
        assert n.std() / spec.scanner.gain == pytest.approx(spec.scanner.noise, rel=0.05)
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from([None, "abscess", "icc"]))
def test_the_field_of_view_lies_inside_the_volume(seed: int, index: int, name: str | None) -> None:
    """A cube of twice the box's longest edge (24 mm at least): nothing is made up at its border."""
    spec = draw(seed, index, name)
    for box in render(spec).boxes.values():
        spacing = np.array(spec.scanner.spacing)
        half = max(float((box.edges * spacing).max()), 12.0) / spacing
        middle = (np.array(box.lower) + np.array(box.upper)) / 2
        assert (middle - half >= 0).all(), spec.lesion_id
        assert (middle + half <= np.array(spec.shape)).all(), spec.lesion_id


def test_a_neighbour_shows_beside_the_lesion_and_not_in_it() -> None:
    spec = next(s for s in (draw(23, i) for i in range(300)) if s.neighbour)
    alone = replace(spec, neighbour=None)
    with_it, without = render(spec, noise=False), render(alone, noise=False)
    assert with_it.boxes == without.boxes
    p = "portal_venous"
    change = with_it.volumes[p].data != without.volumes[p].data
    assert change.sum() > 50
    assert not change[ndimage.binary_erosion(with_it.masks["lesion"], iterations=2)].any()


def test_an_abscess_has_a_dark_cavity_a_bright_wall_and_a_stirred_surround() -> None:
    """Averaged over a few: what the class is told by, phase by phase, over parenchyma."""
    cavity, wall, around = [], [], []
    for index in range(8):
        spec = draw(24, index, "abscess")
        rendering = render(spec, noise=False)
        assert set(rendering.masks) == {"lesion"}
        lesion = rendering.masks["lesion"]
        step = tuple(spec.scanner.spacing)
        depth = ndimage.distance_transform_edt(lesion, sampling=step)
        away = ndimage.distance_transform_edt(~lesion, sampling=step)
        data = rendering.volumes["arterial"].data / spec.scanner.gain
        late = rendering.volumes["delayed"].data / spec.scanner.gain
        far = np.median(data[away > 0.9 * spec.form.radius])
        cavity.append(np.percentile(late[depth > 0], 2))
        wall.append(np.percentile(data[depth > 0], 97) / far)
        ring = (away > 2) & (away < 0.4 * spec.form.radius)
        around.append(np.median(data[ring]) / far)
    assert np.mean(cavity) < 0.85
    assert np.mean(wall) > 1.25
    assert np.mean(around) > 1.06
