"""Stochastic passes: seeded, each for itself, centred on the plain view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.passes import PassRecipe, views
from models.voi import Preprocessing, centre

SPEC, RECIPE = Preprocessing(), PassRecipe()
BASE = np.random.default_rng(0).normal(size=(3, 32, 32, 32)).astype(np.float32)
STILL = PassRecipe(degrees=0, shift=0, scale=0, phase_shift=0, gain=0, offset=0, flip=False)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 5))
def test_pass_i_depends_on_seed_and_i_alone(seed: int, count: int) -> None:
    few, more = (views(BASE, SPEC, RECIPE, n, seed) for n in (count, count + 2))
    np.testing.assert_array_equal(few, more[:count])


def test_seeds_and_passes_differ() -> None:
    a, b = views(BASE, SPEC, RECIPE, 2, 0), views(BASE, SPEC, RECIPE, 2, 1)
    assert not np.allclose(a[0], a[1])
    assert not np.allclose(a, b)


def test_without_variation_a_pass_is_the_plain_view() -> None:
    x = views(BASE, SPEC, STILL, 1, 0)
    assert x.shape == (1, *SPEC.shape(3))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0], centre(BASE, SPEC), atol=1e-5)


def test_flips_mirror_left_right_and_front_back_never_up_down() -> None:
    only_flips = STILL.model_copy(update={"flip": True})
    plain = centre(BASE, SPEC)
    mirrored = [plain, plain[:, ::-1], plain[:, :, ::-1], plain[:, ::-1, ::-1]]
    seen = set()
    for x in views(BASE, SPEC, only_flips, 24, 0):
        gaps = [float(np.abs(x - m).max()) for m in mirrored]
        assert min(gaps) < 1e-5
        seen.add(int(np.argmin(gaps)))
    assert seen == {0, 1, 2, 3}


@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(0, 2), min_size=1, max_size=2), st.integers(0, 99))
def test_a_missing_phase_stays_zero_and_changes_no_other(missing: set[int], seed: int) -> None:
    base = BASE.copy()
    lost = sorted(missing)
    base[lost] = 0
    x, complete = views(base, SPEC, RECIPE, 2, seed), views(BASE, SPEC, RECIPE, 2, seed)
    kept = [p for p in range(3) if p not in missing]
    assert not x[:, lost].any()
    np.testing.assert_array_equal(x[:, kept], complete[:, kept])


@pytest.mark.parametrize("size", [16, 32])
def test_an_input_as_large_as_the_base(size: int) -> None:
    spec = Preprocessing(lesion_voxels=32, base_voxels=size, tensor_voxels=size)
    base = np.random.default_rng(1).normal(size=(2, size, size, size)).astype(np.float32)
    assert views(base, spec, RECIPE, 3, 0).shape == (3, 2, size, size, size)
    np.testing.assert_allclose(views(base, spec, STILL, 1, 0)[0], base, atol=1e-5)
