"""The split and the tables of the repeated experiment."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from models.report.reproduce import console_table, render_reproduction
from models.trial.reproduce import PUBLISHED, Answer, Run, published_split, tables


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), lesions=st.integers(60, 120))
def test_split_keeps_patients_whole_and_classes_even(seed, lesions):
    rng = np.random.default_rng(seed)
    classes = np.arange(lesions) % 3
    patients = [str(p) for p in rng.integers(0, lesions, lesions)]
    training, held, test = published_split(patients, classes, 5, 3, seed)
    rows = np.concatenate([training, held, test])
    assert sorted(rows) == list(range(lesions))
    sets = [{patients[i] for i in part} for part in (training, held, test)]
    assert sum(map(len, sets)) == len(set(patients))
    assert (np.bincount(classes[test], minlength=3) <= 5).all()
    assert (np.bincount(classes[held], minlength=3) <= 3).all()
    again = published_split(patients, classes, 5, 3, seed)
    assert all((a == b).all() for a, b in zip((training, held, test), again, strict=True))


def test_split_of_single_patients_is_exact_and_too_few_are_refused():
    classes = np.repeat(np.arange(6), 82)
    _, held, test = published_split([str(i) for i in range(492)], classes, 10, 10, 0)
    assert np.bincount(classes[test]).tolist() == np.bincount(classes[held]).tolist() == [10] * 6
    with pytest.raises(InputError):
        published_split(["a"] * 3, np.zeros(3, int), 2, 1, 0)


def run(found, first, predicted, scores=None) -> Run:
    held = np.array(found, bool)
    answer = Answer(held.astype(float) if scores is None else scores, held, np.array(first))
    return Run(np.array(predicted), {"default": answer, "spie_rodeo": answer})


LABELS = np.array([[1, 0, np.nan], [1, 1, 0], [0, 1, 0], [0, 0, 1]], float)
CLASSES = np.array([0, 0, 1, 1])


def test_counts_by_hand():
    """'Ignore' (NaN) counts neither for nor against; the rest is plain counting."""
    one = run([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], [2, 0, 0, -1], [0, 1, 1, 1])
    report = tables([one], LABELS, CLASSES, ["a", "b", "c"], ["x", "y"], draws=50)
    row = report["detectors"]["default"]
    assert report["true_features"] == 5
    assert row["micro_ppv"]["value"] == pytest.approx(3 / 4)
    assert row["micro_sensitivity"]["value"] == pytest.approx(3 / 5)
    assert row["first_right"]["value"] == pytest.approx(1 / 4)
    assert row["misclassified"]["sensitivity"]["value"] == pytest.approx(1 / 2)
    assert row["correct"]["ppv"]["value"] == pytest.approx(2 / 3)
    assert row["by_class"]["y"]["sensitivity"]["value"] == pytest.approx(1 / 2)
    assert row["by_feature"]["c"]["ppv"]["value"] is None
    assert report["classifier"]["accuracy"]["value"] == pytest.approx(3 / 4)
    assert report["classifier"]["by_class"]["x"]["value"] == pytest.approx(1 / 2)
    assert report["differences"]["spie_rodeo"]["micro_ppv"]["difference"] == 0


def test_retrainings_widen_the_interval():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 4)) < 0.5).astype(float)
    classes = np.arange(60) % 3
    good, bad = labels == 1, rng.random((60, 4)) < 0.5

    def width(runs):
        report = tables(runs, labels, classes, list("abcd"), list("xyz"), draws=300)
        low, high = report["detectors"]["default"]["micro_ppv"]["ci"]
        return high - low

    def made(found):
        return run(found, [0] * 60, classes, scores=found + rng.random((60, 4)))

    assert width([made(good), made(bad)] * 3) > 1.5 * width([made(bad)] * 6)


def test_report_is_json_and_renders():
    one = run([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], [2, 0, 0, -1], [0, 1, 1, 1])
    report = tables([one], LABELS, CLASSES, ["a", "b<", "c"], ["x", "y"], draws=20)
    report |= {
        "cohort": "c", "synthetic": True, "quick": True, "plan": {"profile": "default"},
        "n": {"training": 1, "validation": 1, "test": 4},
    }  # fmt: skip
    page = render_reproduction(json.loads(json.dumps(report, allow_nan=False)))
    assert "0.750" in page
    assert "b&lt;" in page
    assert f"{PUBLISHED['spie_rodeo']['micro_ppv']:.3f}" in page
    assert any("published" in line for line in console_table(report))


def test_no_run_is_refused():
    with pytest.raises(InputError):
        tables([], LABELS, CLASSES, ["a", "b", "c"], ["x", "y"])
