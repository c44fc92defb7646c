"""The weight of features in the verdicts of a class."""

from __future__ import annotations

import numpy as np

from models.relevance.by_class import class_relevance


def test_means_over_found_features_of_lesions_predicted_so() -> None:
    change = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, np.nan], [-9.0, 5.0], [7.0, -6.0]])
    found = np.array([[1, 1], [1, 1], [1, 1], [0, 1], [1, 1]], dtype=bool)
    table = class_relevance(
        change, np.array([0, 0, 0, 0, 1]), found, ["hcc", "icc", "fnh"], ["scar", "washout"]
    )
    assert list(table) == ["hcc", "icc", "fnh"]
    assert list(table["hcc"]) == ["washout", "scar"]
    assert table["hcc"]["scar"]["value"] == 2.0
    assert table["hcc"]["scar"]["n"] == 3
    low, high = table["hcc"]["scar"]["ci"]
    assert 1.0 <= low < 2.0 < high <= 3.0
    assert table["hcc"]["washout"] == {"value": 5.0, "ci": [5.0, 5.0], "n": 3}
    # One lesion is no mean.
    assert table["icc"] == table["fnh"] == {}
