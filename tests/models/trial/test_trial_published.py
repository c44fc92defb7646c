"""The rows of the published detectors, from a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.errors import InputError
from models.evaluation.ranking import auroc
from models.trial.data import Sample
from models.trial.published import PUBLISHED

FEATURES = ["washout", "isointense_late", "central_scar"]


def sample(seed: int, n: int = 60, passes: int = 6, d: int = 5) -> Sample:
    """Each feature moves one unit; classes follow the first feature."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < 0.4).astype(float)
    middle = rng.normal(size=(n, 1, d))
    middle[:, 0, :3] += 3 * labels
    fc = (middle + 0.3 * rng.normal(size=(n, passes, d))).astype(np.float32)
    return Sample(
        ids=tuple(map(str, range(n))), patients=tuple(map(str, range(n))),
        classes=labels[:, 0].astype(np.int64), labels=labels, sizes_mm=np.full((n, 3), 30.0),
        bases=np.zeros((n, 1, 2, 2, 2), np.float32), logits=np.zeros((n, 2), np.float32),
        pass_logits=np.zeros((n, passes, 2), np.float32), plain={"fc": fc[:, 0]},
        averaged={"fc": fc.mean(axis=1)}, passes={"fc": fc},
    )  # fmt: skip


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_planted_feature_is_ranked_and_rules_apply(name):
    training, test = sample(0), sample(1)
    labelled = np.arange(0, 60, 2)
    told = PUBLISHED[name](training, labelled, test, FEATURES, scar_class=1, seed=3)
    for f in range(3):
        assert auroc(told.scores[:, f], test.labels[:, f]) > 0.8
    assert told.found.shape == (60, 3)
    rows = np.flatnonzero(told.first >= 0)
    assert told.found[rows, told.first[rows]].all()
    if name == "wang2019_gaussian":
        assert not (told.found[:, 0] & told.found[:, 1]).any()
    again = PUBLISHED[name](training, labelled, test, FEATURES, scar_class=1, seed=3)
    np.testing.assert_array_equal(told.scores, again.scores)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_only_labelled_lesions_lend_their_labels(name):
    training, test = sample(0), sample(1)
    labelled = np.arange(0, 60, 2)
    others = np.setdiff1d(np.arange(60), labelled)
    labels = training.labels.copy()
    labels[others] = 1 - labels[others]
    a = PUBLISHED[name](training, labelled, test, FEATURES)
    b = PUBLISHED[name](replace(training, labels=labels), labelled, test, FEATURES)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_single_passes_are_needed():
    bare = replace(sample(0), passes={})
    with pytest.raises(InputError):
        PUBLISHED["spie_rodeo"](bare, np.arange(10), bare, FEATURES)


def test_a_sample_keeps_its_passes_on_disk(tmp_path):
    one = sample(2)
    one.save(tmp_path)
    np.testing.assert_array_equal(Sample.open(tmp_path).passes["fc"], one.passes["fc"])
    assert one.take(np.array([3, 1])).passes["fc"].shape == (2, 6, 5)
