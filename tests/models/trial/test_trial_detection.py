"""Experiments on detection, on a synthetic sample whose activations hold planted features."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from models.trial import labelling
from models.trial.data import Sample
from models.trial.detection import RIVALS, best_taps, measure_probes, read_all, trade_off
from models.trial.experiment import Experiment
from models.voi import Preprocessing

FEATURES = ("a", "b", "c")
PHASES = ("arterial", "portal_venous", "delayed")
SPEC = Preprocessing(base_voxels=16, tensor_voxels=12)
CLASSES = 3


def sample(n: int, seed: int) -> Sample:
    """Feature a is in the tap 'late' and in the image, b in 'early' alone, c goes with class 0."""
    world = np.random.default_rng(0)
    moves = world.normal(size=(3, 24))
    rng = np.random.default_rng([1, seed])
    classes = rng.integers(0, CLASSES, n)
    labels = (rng.random((n, 3)) < 0.35).astype(float)
    labels[:, 2] = rng.random(n) < np.where(classes == 0, 0.9, 0.05)
    passes = np.abs(
        rng.normal(size=(n, 1, 24)) + 0.3 * rng.normal(size=(n, 4, 24))
        + ((labels * [2.0, 0.0, 1.0]) @ moves)[:, None]
    ).astype(np.float32)  # fmt: skip
    early = (rng.normal(size=(n, 24)) + 1.5 * labels[:, 1:2] * moves[1]).astype(np.float32)
    logits = 3.0 * np.eye(CLASSES)[classes] + rng.normal(size=(n, CLASSES))
    bases = rng.normal(size=(n, 3, 16, 16, 16)) * 0.2
    bases[:, 0] += labels[:, 0, None, None, None]
    taps = {"early": early, "late": passes.mean(axis=1)}
    return Sample(
        ids=tuple(f"l{seed}-{i}" for i in range(n)),
        patients=tuple(f"p{seed}-{i // 2}" for i in range(n)),
        classes=classes,
        labels=labels,
        sizes_mm=np.full((n, 3), 20.0),
        bases=bases.astype(np.float32),
        logits=logits.astype(np.float32),
        pass_logits=np.repeat(logits[:, None], 4, axis=1).astype(np.float32),
        plain=taps,
        averaged=taps,
        passes={"late": passes},
    )


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment(
        training=sample(90, 0),
        validation=sample(60, 1),
        test=sample(120, 2),
        features=FEATURES,
        taps=("late",),
        phases=PHASES,
        spec=SPEC,
        budget=8,
        seeds=(0, 1),
    )


@pytest.fixture(scope="module")
def report(experiment: Experiment) -> dict[str, Any]:
    found = measure_probes(experiment, draws=60)
    return json.loads(json.dumps(found))  # JSON values only


def test_every_detector_has_a_row_that_says_what_it_used(report: dict[str, Any]) -> None:
    rows = report["probes"]
    assert next(iter(rows)) == "default"
    assert {*RIVALS, "taps_only", "last_tap", "measurements_only", "all_labels"} <= set(rows)
    for name, row in rows.items():
        low, high = row["macro_auroc_ci"]
        assert low <= row["macro_auroc"] <= high, name
        assert set(row["per_feature"]) == set(FEATURES)
    assert rows["default"]["validation_labels"]
    assert not rows["whitened"]["validation_labels"]
    assert len(rows["default"]["labelled_lesions"]) == len(rows["default"]["fits"]) == 2
    assert rows["all_labels"]["labelled_lesions"] == [90]
    assert set(report["comparisons"]["macro_auroc"]) == set(RIVALS)
    assert set(report["comparisons_by_patient"]["macro_ap"]) == set(RIVALS)


def test_what_is_where_it_was_put(experiment: Experiment, report: dict[str, Any]) -> None:
    rows = report["probes"]
    by_image = rows["measurements_only"]["per_feature"]
    assert by_image["a"]["auroc"] > 0.95
    assert by_image["b"]["auroc"] < 0.7
    assert rows["last_tap"]["per_feature"]["b"]["auroc"] < 0.7
    assert best_taps(experiment) == ("early", "late")
    assert rows["taps_only"]["per_feature"]["b"]["auroc"] > 0.8
    # The class says all about c, and nothing about the rest; within a class it is blind.
    assert rows["class_only"]["per_feature"]["c"]["auroc"] > 0.85
    assert rows["class_only"]["per_feature"]["a"]["auroc"] < 0.65
    assert report["gain_over_class"]["a"]["ci"][0] > 0.2
    taps = labelling.by_tap(experiment, draws=40)["per_feature"]
    assert (taps["a"]["best"], taps["b"]["best"]) == ("late", "early")
    assert taps["b"]["lead"]["difference"] > 0.1
    assert taps["a"]["lead"]["difference"] == 0


def test_the_dial_trades_sensitivity_for_ppv(report: dict[str, Any]) -> None:
    for points in report["trade_off"].values():
        dials = [p["threshold"] for p in points]
        sensitivities = [p["sensitivity"] for p in points]
        assert dials == sorted(dials)
        assert sensitivities == sorted(sensitivities, reverse=True)
    curve = trade_off(np.array([[[0.9], [0.2]]]), np.array([[1.0], [np.nan]]), [0.1, 0.95])
    assert [(p["ppv"], p["sensitivity"]) for p in curve] == [(1.0, 1.0), (0.0, 0.0)]


def test_the_default_reads_no_label_but_those_it_was_given(experiment: Experiment) -> None:
    """Other labels on unlabelled training lesions, and on test lesions, change no reading."""
    labels = experiment.training.labels.copy()
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate(experiment.labelled))
    assert len(rest) > 20
    evidence = experiment.evidence(experiment.taps)
    rows = experiment.labelled[0]
    before = experiment.read(evidence, [experiment.fit(evidence, rows)], [len(rows)])
    labels[rest] = 1 - labels[rest]
    other = Experiment(
        training=_relabelled(experiment.training, labels),
        validation=experiment.validation,
        test=_relabelled(experiment.test, 1 - experiment.test.labels),
        features=FEATURES, taps=("late",), phases=PHASES, spec=SPEC, budget=8, seeds=(0, 1),
    )  # fmt: skip
    after = other.read(evidence, [other.fit(evidence, rows)], [len(rows)])
    np.testing.assert_array_equal(after.scores, before.scores)
    np.testing.assert_array_equal(after.found, before.found)


def test_labels_are_worth_something(experiment: Experiment) -> None:
    curve = labelling.learning_curve(experiment, (2, 20), draws=40)
    assert curve[0]["labelled_lesions"] < curve[1]["labelled_lesions"]
    assert curve[0]["macro_auroc"] < curve[1]["macro_auroc"]
    chance = labelling.selectivity(experiment, draws=40)
    assert chance["selectivity"]["difference"] > 0.2
    assert 0.35 < chance["control_macro_auroc"] < 0.65
    rows = labelling.protocols(experiment, draws=40)
    assert {"every_feature", "any_lesions", "positives_only", "every_feature_taps"} <= set(rows)
    worse = rows["positives_only"]["less_than_every_feature"]["macro_auroc"]
    assert worse["difference"] > -0.02
    json.dumps([curve, chance, rows])


def test_without_single_passes_the_published_rows_are_left_out(experiment: Experiment) -> None:
    bare = Experiment(
        training=_without_passes(experiment.training.take(np.arange(40))),
        validation=experiment.validation,
        test=_without_passes(experiment.test),
        features=FEATURES, taps=("late",), phases=PHASES, spec=SPEC, budget=8, seeds=(0,),
    )  # fmt: skip
    assert set(read_all(bare)).isdisjoint({"wang2019_gaussian", "spie_rodeo"})


def _relabelled(given: Sample, labels: np.ndarray) -> Sample:
    return Sample(**{**vars(given), "labels": labels})


def _without_passes(given: Sample) -> Sample:
    return Sample(**{**vars(given), "passes": {}})
