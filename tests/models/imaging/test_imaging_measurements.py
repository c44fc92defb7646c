"""Measurements: what they read from drawn lesions, what they don't depend on, odd inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cohort.phantom import PHASES, draw, render
from models.errors import InputError
from models.imaging.border import border, everywhere, harmonics
from models.imaging.frame import DIRECTIONS, RADII, Frame, directions
from models.imaging.measurements import NAMES, measure, names
from models.vocabulary import liver_mri
from models.voi import extract, normalise
from models.volume import Study
from tests.models.imaging.drawn import SIZE, SPEC, base, radius, signal


def measured(image: np.ndarray, size: tuple[float, float, float] = SIZE) -> dict[str, float]:
    return dict(zip(NAMES, measure(image, size).tolist(), strict=True))


def test_names_are_unique_and_go_with_the_phases() -> None:
    assert names(tuple(liver_mri().phase_ids)) == NAMES
    assert len(set(NAMES)) == len(NAMES)
    for phases in (("one",), ("a", "b"), ("a", "b", "c", "d")):
        image = np.random.default_rng(0).normal(size=(len(phases), 16, 16, 16)).astype(np.float32)
        assert len(set(names(phases))) == len(measure(image, SIZE, SPEC, phases))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 6.0]),
    size=st.tuples(*[st.floats(0.5, 200)] * 3),
    voxels=st.sampled_from([4, 9, 32]),
)
def test_any_image_gives_finite_numbers(
    seed: int, spread: float, size: tuple[float, float, float], voxels: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(scale=spread, size=(3, voxels, voxels, voxels)).astype(np.float32)
    values = measure(image, size)
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(measure(image, size), values)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(0.7, 1.4)] * 3))
def test_a_gain_of_each_phase_changes_nothing(gains: tuple[float, float, float]) -> None:
    image = base((0.3, -0.1, -0.25))
    brighter = np.stack(
        [((p / SPEC.gain + 1) * g - 1) * SPEC.gain for p, g in zip(image, gains, strict=True)]
    ).astype(np.float32)
    np.testing.assert_allclose(measure(brighter, SIZE), measure(image, SIZE), atol=2e-3)


def test_levels_and_changes_are_those_drawn() -> None:
    found = measured(base((0.3, -0.1, -0.25)))
    for phase, level in zip(liver_mri().phase_ids, (0.3, -0.1, -0.25), strict=True):
        assert found[f"{phase}.median"] == pytest.approx(level, abs=0.02)
        assert found[f"{phase}.core"] == pytest.approx(level, abs=0.02)
        assert abs(found[f"{phase}.beside"]) < 0.06
    assert found["arterial>delayed.median"] == pytest.approx(-0.55, abs=0.02)
    assert found["arterial.bright"] > 0.9
    assert found["delayed.dark"] > 0.4
    assert found["form.size"] == pytest.approx(np.log(27 / 30))
    assert found["form.elongation"] == pytest.approx(np.log(30 / 24))


@pytest.mark.parametrize("at", [0.7, 0.85, 1.0])
def test_the_border_is_found_where_it_was_drawn(at: float) -> None:
    frame = Frame.of(np.array(SIZE), SPEC, 32)
    image = base((-0.3, -0.2, 0.1), at=at)
    found = border(frame.polar(frame.relative(image, SPEC)))
    assert found.mean() == pytest.approx(at, abs=0.05)
    assert found.std() < 0.05


def test_a_rim_stands_out_and_only_where_it_is() -> None:
    plain = np.clip((0.95 - radius()) * 8 + 0.5, 0, 1) * -0.1
    rim = np.exp(-0.5 * ((radius() - 0.9) / 0.07) ** 2) * 0.3
    without = measured(signal(np.stack([plain] * 3)))
    with_it = measured(signal(np.stack([plain, plain + rim, plain + rim])))
    for phase in ("portal_venous", "delayed"):
        assert with_it[f"{phase}.ridge"] > without[f"{phase}.ridge"] + 0.08
        assert with_it[f"{phase}.ridge_least"] > 0.05
    assert with_it["arterial.ridge"] < 0.06


def test_what_two_phases_share_is_structure_not_noise() -> None:
    rng = np.random.default_rng(3)
    cells = np.kron(rng.normal(scale=0.15, size=(8, 8, 8)), np.ones((4, 4, 4)))
    noisy = measured(base((0.0, 0.0, 0.0), noise=0.15))
    uneven = measured(signal(np.stack([cells] * 3)))
    assert uneven["arterial>delayed.uneven"] > 0.06
    assert abs(noisy["arterial>delayed.uneven"]) < 0.03
    assert noisy["arterial.uneven"] > 0.05


def test_a_phase_that_was_not_acquired_counts_for_nothing() -> None:
    image = base((0.3, -0.1, -0.25))
    image[2] = 0
    found = measured(image)
    assert {v for k, v in found.items() if "delayed" in k} == {0.0}
    assert found["centre.dark_rise"] == 0.0
    assert found["arterial.median"] == pytest.approx(0.3, abs=0.02)
    assert found["arterial>portal_venous.median"] == pytest.approx(-0.4, abs=0.02)


def test_input_that_cannot_be_is_refused() -> None:
    image = base((0.1, 0.1, 0.1))
    for size in ((0.0, 10.0, 10.0), (np.nan, 10.0, 10.0), (10.0, 10.0)):
        with pytest.raises(InputError, match="edges"):
            measure(image, size)
    with pytest.raises(InputError, match="phases"):
        measure(image[:2], SIZE)


def test_unrolling_is_linear_interpolation() -> None:
    frame = Frame.of(np.array(SIZE), SPEC, 32)
    x, y, z = np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij")
    polar = frame.polar((2 * x - y + 0.5 * z)[None])
    points = directions()[:, None] * RADII[None, :, None] * np.array(frame.half)
    np.testing.assert_allclose(polar[0], points @ [2, -1, 0.5], atol=1e-9)


def test_smooth_surfaces_are_reproduced() -> None:
    u = directions()
    surface = 1 + 0.2 * u[:, 0] * u[:, 1] - 0.1 * u[:, 2] ** 3 + 0.05 * u[:, 0] ** 4
    assert surface.shape == (DIRECTIONS,)
    np.testing.assert_allclose(harmonics(surface) @ everywhere(), surface, atol=1e-9)


# Feature -> a measurement, and whether the feature raises it, by its radiological definition.
SIGNS = {
    "arterial_hyperenhancement": ("arterial.median", 1),
    "washout": ("arterial>delayed.median", -1),
    "enhancing_capsule": ("delayed.ridge", 1),
    "central_scar": ("centre.arterial", 1),
    "nodular_peripheral_enhancement": ("arterial.rim_uneven", 1),
    "progressive_centripetal_filling": ("arterial>portal_venous.median", 1),
    "progressive_enhancement": ("arterial>delayed.outer", 1),
    "delayed_hyperenhancement": ("portal_venous>delayed.median", 1),
    "isointense_late": ("portal_venous.alike", 1),
    "hypoenhancing_core": ("portal_venous.hub", -1),
    "thin_walled": ("arterial.ridge", 1),
    "heterogeneous": ("arterial>portal_venous.uneven", 1),
}


@pytest.fixture(scope="module")
def switched() -> dict[str, list[tuple[dict[str, float], dict[str, float]]]]:
    """Two phantom lesions with each feature, measured with and without it."""
    wanted = dict.fromkeys(SIGNS, 2)
    found: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {f: [] for f in SIGNS}
    for index in range(200):
        spec = draw(77, index)
        needed = [f for f in spec.features if wanted.get(f)]
        if not needed:
            continue
        whole = _measured_phantom(spec)
        for f in needed:
            wanted[f] -= 1
            found[f].append((whole, _measured_phantom(spec.without(f))))
        if not any(wanted.values()):
            break
    return found


def _measured_phantom(spec) -> dict[str, float]:  # type: ignore[no-untyped-def]
    made = render(spec)
    lesion = extract(Study.make(made.volumes, made.boxes, list(PHASES)), SPEC)
    return measured(normalise(lesion, SPEC), lesion.size_mm)


@pytest.mark.parametrize("feature", SIGNS)
def test_a_feature_moves_what_its_definition_speaks_of(feature: str, switched) -> None:  # type: ignore[no-untyped-def]
    name, sign = SIGNS[feature]
    assert len(switched[feature]) == 2
    for with_it, without in switched[feature]:
        assert sign * (with_it[name] - without[name]) > 0
