"""Scatter over rounds, and quantiles of counted things."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.spread import quantile_of_counts, spread


def test_extremes_median_and_an_interval_around_it() -> None:
    found = spread([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (found["min"], found["median"], found["max"], found["n"]) == (1.0, 3.0, 5.0, 5)
    low, high = found["interval"]
    assert 1.0 <= low <= 3.0 <= high <= 5.0


def test_equal_rounds_have_an_interval_of_no_width() -> None:
    assert spread([2.0] * 6)["interval"] == [2.0, 2.0]


def test_the_interval_is_the_same_every_time_and_narrows_with_rounds() -> None:
    rng = np.random.default_rng(3)
    few, many = rng.normal(size=8), rng.normal(size=200)
    assert spread(few) == spread(few)
    width = {len(d): np.ptp(spread(d)["interval"]) for d in (few, many)}
    assert width[200] < width[8]


def test_few_rounds_claim_no_interval_and_none_is_an_error() -> None:
    assert "interval" not in spread([1.0, 2.0])
    with pytest.raises(ValueError, match="no rounds"):
        spread([])


def test_quantiles_of_counts_are_those_of_the_values_written_out() -> None:
    values, counts = [30, 10, 20], [1, 5, 4]
    written = np.repeat(values, counts)
    for share in (0.1, 0.5, 0.51, 0.9, 0.91, 1.0):
        expected = np.quantile(written, share, method="inverted_cdf")
        assert quantile_of_counts(values, counts, share) == expected
    assert quantile_of_counts([], [], 0.5) is None
