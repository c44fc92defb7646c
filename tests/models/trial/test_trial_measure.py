"""A bundle tried on its cohort: the figures follow from the readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from models.cohort.format import Cohort, read_cohort
from models.report.evaluation import render_evaluation
from models.trial.measure import measure
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
    cohort: Cohort, bundle: Bundle, readings: dict[str, Readings]
) -> None:
    test = readings["test"]
    report = measure(cohort, bundle, readings["validation"], test, seed=0)
    right = (test.probabilities.argmax(axis=1) == test.classes).mean()
    top = report["classifier"]["default"]
    assert top["accuracy"] == pytest.approx(right, abs=1e-6)
    assert top["n_test"] == len(cohort.lesions("test"))
    assert top["n_train"] == len(cohort.lesions("training"))
    called = test.found.sum()
    hits = (test.found & (test.labels == 1)).sum()
    assert report["probes"]["default"]["micro_ppv"] == pytest.approx(hits / called, abs=1e-6)
    assert set(report["probes"]) == {"default", "class_only"}


def test_the_page_is_self_contained_and_says_synthetic(
    cohort: Cohort, bundle: Bundle, readings: dict[str, Readings]
) -> None:
    report = measure(cohort, bundle, readings["validation"], readings["test"], seed=0)
    page = render_evaluation(report)
    assert "synthetic" in page
    assert "http" not in page
    assert all(name in page for name in bundle.probes.features)
