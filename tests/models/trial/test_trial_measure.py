"""A bundle tried on its cohort: the figures follow from the readings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from models.cohort.format import Cohort, read_cohort
from models.cohort.load import load_lesion
from models.evaluation.paired import paired_accuracy
from models.reasons.predict import predict
from models.report.evaluation import render_evaluation
from models.trial.bundle import measure_bundle
from models.trial.distribution import outlier_row
from models.trial.readings import Readings, feature_labels, read_split


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Path) -> Cohort:
    return read_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def readings(cohort: Cohort, bundle: Bundle) -> dict[str, Readings]:
    model = load_model(bundle)
    return {s: read_split(cohort, s, bundle, model, passes=2) for s in ("validation", "test")}


@pytest.fixture(scope="module")
def report(cohort: Cohort, bundle: Bundle) -> dict[str, Any]:
    return measure_bundle(cohort, bundle, load_model(bundle), passes=2)


def test_labels_keep_present_absent_and_not_assessed_apart(cohort: Cohort) -> None:
    lesion = cohort.lesions("test")[0].model_copy(
        update={
            "features": {"washout": "present", "central_scar": "absent", "thin_walled": "ignore"}
        }
    )
    names = ["washout", "central_scar", "thin_walled", "heterogeneous"]
    row = feature_labels([lesion], names)[0]
    np.testing.assert_array_equal(row, [1, 0, np.nan, np.nan])


def test_the_report_counts_what_the_readings_say(
    cohort: Cohort, bundle: Bundle, readings: dict[str, Readings], report: dict[str, Any]
) -> None:
    test = readings["test"]
    right = (test.probabilities.argmax(axis=1) == test.classes).mean()
    top = report["classifier"]["default"]
    assert top["accuracy"] == pytest.approx(right, abs=1e-6)
    assert top["n_test"] == len(cohort.lesions("test"))
    assert top["n_train"] == len(cohort.lesions("training"))
    called = test.found.sum()
    hits = (test.found & (test.labels == 1)).sum()
    assert report["probes"]["default"]["micro_ppv"] == pytest.approx(hits / called, abs=1e-6)
    assert set(report["probes"]) == {"default", "class_only"}


def test_classes_are_read_from_the_plain_view(
    cohort: Cohort, bundle: Bundle, readings: dict[str, Readings]
) -> None:
    """So that the report's accuracy is that of what /v1/predictions serves."""
    entry = cohort.lesions("test")[3]
    lesion = load_lesion(cohort, entry, bundle.manifest.phases, bundle.preprocessing)
    served = predict(lesion, bundle, load_model(bundle)).probabilities
    own = readings["test"].probabilities[3]
    for row in served:
        assert own[bundle.manifest.classes.index(row.id)] == pytest.approx(
            row.probability, abs=1e-4
        )


def test_the_page_is_self_contained_and_says_synthetic(
    bundle: Bundle, report: dict[str, Any]
) -> None:
    page = render_evaluation(report)
    assert "synthetic" in page
    assert "http" not in page
    assert all(name.replace("_", " ") in page for name in bundle.probes.features)


def test_the_page_shows_what_the_whole_evaluation_adds(report: dict[str, Any]) -> None:
    top = report["classifier"]["default"]
    gap = paired_accuracy(np.array([1, 1, 0]), np.array([1, 0, 0]))
    ood = outlier_row(np.arange(9.0), np.arange(6.0, 12), 0)
    whole = report | {
        "classifier": {"default": top, "wang2019": top, "default_less_wang2019": gap},
        "ood": {"noise": {"what": "noise of the same mean"} | ood},
        "ood_inside": {"n": 9, "flagged": 0.01, "flagged_ci": [0.0, 0.3]},
        "ood_missing": {"brain": "npm is not installed"},
    }
    page = render_evaluation(whole, "data:image/png;base64,AAAA")
    for text in ("wang2019", "noise of the same mean", "npm is not installed", "base64,AAAA"):
        assert text in page
    assert f"{ood['auroc']:.3f}" in page
