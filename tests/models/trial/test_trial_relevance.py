"""The experiment on relevance, end to end on a small phantom through a real network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle.manifest import CLASSIFIER
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.cnn.data import load_split
from models.cohort.format import read_cohort
from models.cohort.phantom.spec import draw
from models.relevance.directions import Directions
from models.trial.data import Pairs, Sample
from models.trial.relevance import Sizes, measure_relevance
from models.trial.switched import switched_off
from models.trial.weighing import ask, by_removal, class_prior
from services.training.pairs import Phantom
from services.training.samples import read_sample
from services.training.splits import take


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> OnnxModel:
    return load_model(bundle)


@pytest.fixture(scope="module")
def sample(tiny_cohort: Path, bundle: Bundle) -> Sample:
    cohort = read_cohort(tiny_cohort)
    split = take(load_split(cohort, "test", bundle.vocabulary, bundle.preprocessing), np.arange(8))
    patients = [e.patient_id for e in cohort.lesions("test")][:8]
    return read_sample(
        bundle.path / CLASSIFIER, split, patients, list(bundle.manifest.taps),
        bundle.preprocessing, bundle.recipe, 1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def truth(tiny_cohort: Path, bundle: Bundle, model: OnnxModel, sample: Sample) -> Pairs:
    phantom = Phantom.of(read_cohort(tiny_cohort))
    assert phantom is not None
    specs = [draw(phantom.seed, phantom.index[i]) for i in sample.ids]
    return switched_off(specs, bundle.vocabulary.feature_ids, model, bundle.preprocessing)


def of_truth(bundle: Bundle, sample: Sample, truth: Pairs) -> Directions:
    """Directions learned from the very pairs that they are asked of: nearly an oracle."""
    target = list(sample.plain)[-1]
    return Directions.fit(
        bundle.vocabulary.feature_ids,
        sample.plain,
        {tap: values[truth.lesion] for tap, values in sample.plain.items()},
        {target: truth.plain[target]},
        truth.feature,
        origin="rendering",
    )


def test_an_oracle_agrees_with_the_truth(
    bundle: Bundle, model: OnnxModel, sample: Sample, truth: Pairs
) -> None:
    directions = replace(of_truth(bundle, sample, truth), penalty=0.0)
    question = ask(sample, truth, bundle, model)
    here = sample.plain[directions.target][truth.lesion]
    real = here - truth.plain[directions.target]
    exact = np.einsum("kd,kd->k", real, question.slopes[directions.target][truth.lesion])
    # The network ends in a linear layer: its gradient times the true displacement is the truth.
    np.testing.assert_allclose(exact, question.truth, atol=1e-4)
    row = by_removal(question, directions)
    assert np.corrcoef(row, question.truth)[0, 1] > 0.7


def test_the_prior_knows_labels_alone(
    bundle: Bundle, model: OnnxModel, sample: Sample, truth: Pairs
) -> None:
    question = ask(sample, truth, bundle, model)
    labels = np.full((40, 14), 0.0)
    classes = np.repeat(np.arange(4), 10)
    labels[classes == 1, 2] = 1.0
    row = class_prior(question, classes, labels)
    asked = (question.feature == 2) & (question.predicted == 1)
    np.testing.assert_allclose(row[asked], np.log((11 / 12) / (11 / 42)))
    assert (row[(question.feature == 2) & (question.predicted == 0)] < 0).all()


def test_report_holds_every_row_and_is_json(
    bundle: Bundle, model: OnnxModel, sample: Sample, truth: Pairs
) -> None:
    made = replace(bundle, directions=of_truth(bundle, sample, truth))
    joint = sample.logits[:5] * 0.5
    arguments = (made, model, sample, sample, truth, [np.arange(4), np.arange(2, 6)])
    report = measure_relevance(*arguments, Sizes(edited=3, draws=60), joint=joint)
    assert set(report["baselines"]) == {
        "paired_mean", "first_order", "probe_gradient", "projected_out", "absent_mean",
        "class_prior", "shuffled",
    }  # fmt: skip
    assert report["form"] == "activation_removal"
    assert report["n"] == len(np.unique(truth.lesion))
    assert report["n_pairs"] == len(truth)
    assert report["completeness"]["n"] == 5
    image = report["edits"]["image_removal"]
    assert image["n"] <= 3
    assert -1 <= image["mean_with_default"]["spearman"] <= 1
    assert len(report["edits"]["directions"]["each"]) == 2
    assert -1 <= report["spearman"] <= 1
    called = bundle.probes.found(
        bundle.probe_vector(
            sample.averaged,
            np.stack(
                [bundle.measure(b, s) for b, s in zip(sample.bases, sample.sizes_mm, strict=True)]
            ),
        )
    )
    known = made.directions.counts > 0
    assert report["found"]["n_pairs"] == called[np.unique(truth.lesion)][:, known].sum()
    assert sum(row["n"] for row in report["per_feature"].values()) == len(truth)
    text = json.dumps(report, allow_nan=False)
    again = measure_relevance(*arguments, Sizes(edited=3, draws=60), joint=joint)
    assert json.dumps(again, allow_nan=False) == text


def test_a_bundle_without_directions_is_measured_by_its_first_order(
    bundle: Bundle, model: OnnxModel, sample: Sample, truth: Pairs
) -> None:
    made = replace(bundle, directions=None)
    report = measure_relevance(made, model, sample, sample, truth, [], Sizes(edited=0, draws=20))
    assert report["form"] == "first_order"
    assert report["spearman"] == report["baselines"]["first_order"]["spearman"]
    assert report["edits"]["image_removal"] == {}
