"""Wiping the surroundings takes away what is beside a lesion and leaves the lesion."""

from __future__ import annotations

import numpy as np

from models.cohort.phantom.stress import mark_cover, marked
from models.consistency.surroundings import surroundings, wiped
from models.voi import Preprocessing

SPEC, SIZE = Preprocessing(), np.array([30.0, 24.0, 27.0])


def _base() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(0.1, 0.15, (3, 32, 32, 32)).astype(np.float32)


def test_a_mark_goes_and_the_lesion_stays() -> None:
    base = _base()
    out = wiped(marked(base, SPEC), SIZE, SPEC)
    inside = surroundings(32, SIZE, SPEC) == 0
    np.testing.assert_array_equal(out[:, inside], base[:, inside])
    mark = mark_cover(SPEC) == 1
    assert np.abs(out[:, mark] - 0.1).max() < 0.5
    assert inside[16 - 8 : 16 + 8, 16, 16].all()
    assert not inside[0, 0, 0]


def test_noise_stays_so_that_it_looks_like_an_image() -> None:
    base = _base()
    out = wiped(base, SIZE, SPEC)
    outside = surroundings(32, SIZE, SPEC) == 1
    assert 0.7 * base[:, outside].std() < out[:, outside].std() < base[:, outside].std()


def test_wiping_twice_is_close_to_wiping_once_and_nothing_is_written_to() -> None:
    base = marked(_base(), SPEC)
    before = base.copy()
    once = wiped(base, SIZE, SPEC)
    np.testing.assert_array_equal(base, before)
    assert (wiped(once, SIZE, SPEC) != once).mean() < 0.1


def test_missing_phases_stay_zero_and_flat_ones_flat() -> None:
    base = marked(_base(), SPEC)
    base[2] = 0.0
    base[1] = 0.3
    out = wiped(base, SIZE, SPEC)
    assert (out[2] == 0).all()
    assert (out[1] == np.float32(0.3)).all()


def test_a_tiny_lesion_and_a_needle() -> None:
    for size in (np.array([2.0, 2.0, 2.0]), np.array([60.0, 0.0, 60.0])):
        assert np.isfinite(wiped(_base(), size, SPEC)).all()
