"""Image edits: nearer to the lesion without the feature, small elsewhere, never surprising."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cohort.phantom import PHASES, draw, render
from models.errors import InputError
from models.imaging.border import harmonics, on_sphere
from models.imaging.edits import EDITS, Edits, remove
from models.imaging.edits.scene import STEPS, Scene
from models.imaging.frame import DIRECTIONS
from models.vocabulary import liver_mri
from models.voi import Preprocessing, extract, normalise
from models.volume import Study
from tests.models.imaging.drawn import SIZE, SPEC, base, radius, signal

FEATURES = liver_mri().feature_ids


def test_every_feature_of_the_default_vocabulary_has_an_edit() -> None:
    assert set(FEATURES) == set(EDITS)


def test_a_feature_without_an_edit_is_refused_by_name() -> None:
    with pytest.raises(InputError) as refused:
        remove("fat_in_mass", base((0.1, 0.1, 0.1)), SIZE)
    assert refused.value.code == "no_edit"
    assert "fat_in_mass" in refused.value.line


def test_edits_of_one_lesion_are_those_made_one_by_one() -> None:
    image = base((0.4, 0.1, -0.2))
    together = Edits(image, SIZE, SPEC)
    for feature in [*FEATURES, *reversed(FEATURES)]:
        np.testing.assert_array_equal(together.without(feature), remove(feature, image, SIZE, SPEC))
    assert together.without("washout") is together.without("washout")
    with pytest.raises(ValueError, match="read-only"):
        together.without("washout")[:] = 0


@settings(max_examples=25, deadline=None)
@given(
    feature=st.sampled_from(FEATURES),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 0.1, 3.0]),
    size=st.tuples(*[st.floats(1, 120)] * 3),
    lost=st.sets(st.integers(0, 2), max_size=2),
)
def test_any_image_may_be_edited(
    feature: str, seed: int, spread: float, size: tuple[float, float, float], lost: set[int]
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(scale=spread, size=(3, 16, 16, 16)).astype(np.float32)
    image = np.clip(image, -SPEC.clip, SPEC.clip)
    image[list(lost)] = 0
    before = image.copy()
    edited = remove(feature, image, size)
    np.testing.assert_array_equal(image, before)
    assert edited.dtype == np.float32
    assert np.isfinite(edited).all()
    assert np.abs(edited).max() <= SPEC.clip
    assert not edited[list(lost)].any()
    np.testing.assert_array_equal(remove(feature, image, size), edited)


@pytest.mark.parametrize("intensity", ["zscore", "minmax", "percentile"])
@pytest.mark.parametrize("feature", FEATURES)
def test_other_intensity_scales_work_too(feature: str, intensity: str) -> None:
    spec = Preprocessing(intensity=intensity)  # type: ignore[arg-type]
    edited = remove(feature, base((0.3, -0.1, -0.25)), SIZE, spec)
    assert np.isfinite(edited).all()


@pytest.mark.parametrize("feature", FEATURES)
def test_what_lies_far_from_the_lesion_keeps_its_bits(feature: str) -> None:
    image = base((0.3, 0.05, -0.2), noise=0.05)
    far = radius() > 1.9
    edited = remove(feature, image, SIZE)
    np.testing.assert_array_equal(edited[:, far], image[:, far])


@pytest.mark.parametrize(
    ("feature", "levels"),
    [
        ("arterial_hyperenhancement", (-0.2, -0.2, -0.2)),
        ("washout", (0.1, 0.1, 0.1)),
        ("washout", (-0.4, -0.4, -0.4)),
        ("washout", (-0.4, -0.3, -0.2)),
        ("progressive_enhancement", (-0.1, -0.1, -0.1)),
        ("delayed_hyperenhancement", (-0.2, -0.2, -0.2)),
        ("hypoenhancing_core", (-0.2, -0.2, -0.2)),
        ("central_scar", (0.2, 0.1, 0.1)),
        ("heterogeneous", (-0.2, -0.2, -0.2)),
        ("nodular_peripheral_enhancement", (-0.2, -0.2, -0.2)),
        ("progressive_centripetal_filling", (-0.2, -0.2, -0.2)),
        ("enhancing_capsule", (-0.2, -0.2, -0.2)),
        ("isointense_late", (0.3, 0.15, 0.15)),
        ("isointense_late", (-0.3, -0.25, -0.25)),
    ],
)
def test_a_lesion_without_the_feature_is_left_nearly_alone(
    feature: str, levels: tuple[float, ...]
) -> None:
    image = base(levels)
    inside = radius() < 1.1
    change = np.abs(remove(feature, image, SIZE) - image)[:, inside].mean() / SPEC.gain
    assert change < 0.03


def test_washout_goes_back_to_the_level_before_it() -> None:
    image = base((0.05, -0.10, -0.25))
    tissue = radius() < 0.6
    before, after = (np.median(x[2][tissue]) / SPEC.gain for x in (image, _edit("washout", image)))
    assert before == pytest.approx(-0.25, abs=0.01)
    assert after == pytest.approx(0.109, abs=0.03)  # where the two late levels point back to


def test_a_capsule_is_made_even_with_its_surroundings() -> None:
    inside = np.clip((0.95 - radius()) * 8 + 0.5, 0, 1) * -0.1
    rim = np.exp(-0.5 * ((radius() - 0.9) / 0.08) ** 2) * 0.4
    image = signal(np.stack([inside, inside + rim, inside + rim]))
    edited = _edit("enhancing_capsule", image)
    at_rim = np.abs(radius() - 0.9) < 0.08
    assert np.mean(image[1:, at_rim]) / SPEC.gain > 0.2
    assert abs(np.mean(edited[1:, at_rim])) / SPEC.gain < 0.1
    deep = radius() < 0.5
    assert np.abs(edited - image)[:, deep].max() < 0.05


def test_removing_twice_changes_less_than_removing_once() -> None:
    for feature, (image, size, _) in _pairs().items():
        once = remove(feature, image[0], size[0])
        twice = remove(feature, once, size[0])
        assert np.linalg.norm(twice - once) < np.linalg.norm(once - image[0]), feature


def _edit(feature: str, image: np.ndarray) -> np.ndarray:
    return remove(feature, image, SIZE)


@pytest.mark.parametrize("feature", [f for f in FEATURES if not f.endswith("_growth")])
def test_an_edit_comes_nearer_to_the_lesion_rendered_without_the_feature(feature: str) -> None:
    images, sizes, truths = _pairs()[feature]
    left = whole = 0.0
    for image, size, truth in zip(images, sizes, truths, strict=True):
        left += float(((remove(feature, image, size) - truth) ** 2).sum())
        whole += float(((image - truth) ** 2).sum())
    assert left < 0.8 * whole


@pytest.mark.parametrize("feature", ["infiltrative_growth", "nodular_growth"])
def test_an_edit_of_growth_goes_the_right_way(feature: str) -> None:
    images, sizes, truths = _pairs()[feature]
    for image, size, truth in zip(images, sizes, truths, strict=True):
        change = remove(feature, image, size) - image
        assert float((change * (truth - image)).sum()) > 0


_MADE: dict[str, tuple[list, list, list]] = {}


def _pairs() -> dict[str, tuple[list, list, list]]:
    """Feature -> phantom lesions that have it: bases, sizes, bases rendered without it."""
    if _MADE:
        return _MADE
    found: dict[str, tuple[list, list, list]] = {f: ([], [], []) for f in FEATURES}
    for index in range(300):
        spec = draw(78, index)
        needed = [f for f in spec.features if len(found[f][0]) < 3]
        if needed:
            image, size = _base(spec)
            for f in needed:
                for row, value in zip(
                    found[f], (image, size, _base(spec.without(f))[0]), strict=True
                ):
                    row.append(value)
        if all(len(v[0]) == 3 for v in found.values()):
            break
    _MADE.update(found)
    return _MADE


def _base(spec) -> tuple[np.ndarray, tuple[float, float, float]]:  # type: ignore[no-untyped-def]
    made = render(spec)
    lesion = extract(Study.make(made.volumes, made.boxes, list(PHASES)), SPEC)
    return normalise(lesion, SPEC), lesion.size_mm


@pytest.mark.parametrize("columns", [slice(0, 24), slice(8, 20), slice(22, 24), slice(0, 0)])
def test_values_are_spread_as_the_whole_sum_says(columns: slice) -> None:
    """Only where something is to be spread is the sum over harmonics taken: the same bits."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=(3, 32, 32, 32)).astype(np.float32)
    phases = ("arterial", "portal_venous", "delayed")
    scene = Scene(base, np.array([30.0, 24.0, 28.0]), Preprocessing(), phases)
    values = np.zeros((DIRECTIONS, len(STEPS)))
    values[:, columns] = rng.normal(size=values[:, columns].shape)
    at = np.clip((scene.rho - STEPS[0]) / (STEPS[1] - STEPS[0]), 0, len(STEPS) - 1.001)
    low, part = at.astype(np.intp), at - at.astype(np.intp)
    table = harmonics(values)
    radius, way = scene.frame.place()
    mixed = table[:, low] * (1 - part) + table[:, low + 1] * part
    whole = (mixed * on_sphere(way.reshape(3, -1)).reshape(mixed.shape)).sum(axis=0)
    whole[(scene.rho >= STEPS[-1]) | (radius >= 1.85)] = 0
    np.testing.assert_array_equal(scene.spread(values), whole)
