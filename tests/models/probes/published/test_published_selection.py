"""What counts as found, by the publications' own rules."""

from __future__ import annotations

import numpy as np

from models.probes.published.selection import (
    spie_exclusions,
    spie_found,
    spie_thresholds,
    wang2019_found,
)

NAMES = ["washout", "isointense_late", "central_scar", "nodular_growth", "infiltrative_growth", "a"]


def wang(row, names=NAMES, edge=30.0, scar=20.0):
    found, first = wang2019_found(np.array([row], float), names, np.full((1, 3), edge), scar)
    return {n for n, f in zip(names, found[0], strict=True) if f}, first[0]


def test_washout_and_isointensity_exclude_each_other():
    assert wang([90, 91, 0, 0, 0, 50])[0] == {"isointense_late", "a"}
    assert wang([91, 90, 0, 0, 0, 50])[0] == {"washout", "a"}


def test_a_scar_needs_size():
    assert "central_scar" in wang([10, 0, 120, 0, 0, 50])[0]
    assert "central_scar" not in wang([10, 0, 120, 0, 0, 50], edge=10.0)[0]


def test_growth_pays_forty_nats_and_the_weaker_more():
    """90 - 40 for the stronger, 89 - 40 - 20 or - 40 for the weaker."""
    names = ["nodular_growth", "infiltrative_growth", "a", "b", "c", "d"]
    assert wang([90, 89, 30, 30, 30, 30], names)[0] == {"nodular_growth", "a", "b", "c"}
    assert wang([89, 90, 31, 31, 31, 10], names)[0] == {"infiltrative_growth", "a", "b", "c"}


def test_at_most_four_and_none_that_falls_behind():
    names = list("abcdef")
    assert wang([90, 90, 90, 90, 90, 1], names)[0] == set("abcd")
    assert wang([90, 90, 90, 29, 1, 1], names)[0] == set("abc")
    assert wang([90, 90, 29, 1, 1, 1], names)[0] == set("ab")
    assert wang([1, 2, 3, 4, 5, 6], names)[1] == 5


def test_thresholds_of_the_labelled_lesions():
    scores = np.array([[1.0, 5.0], [3.0, 6.0], [9.0, 7.0]])
    lowest, highest = spie_thresholds(scores, np.array([[1, 0], [1, 0], [0, np.nan]]))
    assert lowest.tolist() == [1.0, np.inf]
    assert highest[0] == 3.0


def test_spie_keeps_the_first_and_what_shares_a_class_with_it():
    labels = np.array([[1, 1, 0], [0, 0, 1]], float)
    apart = spie_exclusions(labels, np.array([0, 1]))
    assert apart.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    found, first = spie_found(
        np.array([[5.0, 4.0, 3.0], [-1.0, -2.0, -3.0]]), np.zeros(3), np.full(3, 6.0), apart
    )
    assert found.tolist() == [[True, True, False], [True, False, False]]
    assert first.tolist() == [0, 0]
