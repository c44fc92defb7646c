"""The ceiling: what the truth behind the images tells of the class."""

from __future__ import annotations

import numpy as np
import pytest

from models.cohort.phantom import ceiling, draw
from models.cohort.phantom.profiles import FEATURES
from models.errors import InputError


def test_the_tables_hold_what_was_drawn() -> None:
    specs = [draw(2, i) for i in range(30)]
    on, truth = ceiling.table("features", specs), ceiling.table("truth", specs)
    assert on.shape == (30, 14)
    assert truth.shape == (30, 19)
    for row, more, spec in zip(on, truth, specs, strict=True):
        assert {f for f, v in zip(FEATURES, row, strict=True) if v} == set(spec.features)
        assert (row > 0).tolist() == (more[:14] > 0).tolist()
        assert tuple(more[14:16]) == spec.base
        assert np.isnan(more[18]) == ("hypoenhancing_core" not in spec.features)


def test_the_truth_tells_the_class_often_but_not_always() -> None:
    found = ceiling.estimate(600, 600, seed=3)
    features, truth = found.scores["features"], found.scores["truth"]
    assert 0.74 < features.accuracy < 0.93
    assert features.accuracy < truth.accuracy < 0.98
    for score in (features, truth):
        assert score.ci[0] < score.accuracy < score.ci[1]
        assert set(score.per_class) == {"hcc", "icc", "crc_metastasis", "cyst", "hemangioma", "fnh"}
    assert found.as_json()["seeds"] == (3, 4)
    assert ceiling.estimate(60, 60, seed=3) == ceiling.estimate(60, 60, seed=3)


@pytest.mark.parametrize(("n", "test", "field"), [(10, 100, "n"), (100, 10, "test")])
def test_too_few_lesions_are_refused(n: int, test: int, field: str) -> None:
    with pytest.raises(InputError) as error:
        ceiling.estimate(n, test, seed=3)
    assert error.value.field == field
