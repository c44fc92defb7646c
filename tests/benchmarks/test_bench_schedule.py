"""Departures of an open loop."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.load.schedule import constant, poisson


def test_a_constant_rate_is_evenly_spaced_from_zero() -> None:
    times = constant(40.0, 2.5)
    assert len(times) == 100
    assert times[0] == 0
    np.testing.assert_allclose(np.diff(times), 1 / 40)
    assert times[-1] < 2.5


def test_a_poisson_process_has_its_rate_and_exponential_gaps() -> None:
    times = poisson(200.0, 100.0, seed=4)
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < 100.0
    assert abs(len(times) - 20_000) < 5 * np.sqrt(20_000)
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # a variation of one
    np.testing.assert_array_equal(times, poisson(200.0, 100.0, seed=4))
    assert len(times) != len(poisson(200.0, 100.0, seed=5))


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0)])
def test_nonsense_is_refused(rate: float, seconds: float) -> None:
    for schedule in (constant, lambda r, s: poisson(r, s, 0)):
        with pytest.raises(ValueError, match="positive"):
            schedule(rate, seconds)
