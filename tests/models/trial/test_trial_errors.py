"""Error detection over a real bundle: what is counted, what is compared, what must not happen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from models.cnn.data import load_split
from models.cohort.format import read_cohort
from models.cohort.phantom.stress import KINDS
from models.errors import BundleError
from models.model import Model
from models.passes import views
from models.trial.data import Sample
from models.trial.errors import SLIPS, measure_errors, scores
from models.trial.judged import Judged, judge
from models.trial.shortcut import measure_shortcut
from models.trial.stressed import UNSEEN
from models.voi import centre


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return load_model(bundle)


@pytest.fixture(scope="module")
def sample(tiny_cohort: Path, bundle: Bundle, model: Model) -> Sample:
    cohort = read_cohort(tiny_cohort)
    split = load_split(cohort, "training", bundle.vocabulary, bundle.preprocessing)
    taps = list(bundle.manifest.taps)
    plain: dict[str, list[Any]] = {name: [] for name in ("logits", *taps)}
    passes: dict[str, list[Any]] = {name: [] for name in ("logits", *taps)}
    for base in split.bases:
        once = model.forward(centre(base, bundle.preprocessing)[None], ["logits", *taps])
        x = views(base, bundle.preprocessing, bundle.recipe, 2, 0)
        many = model.forward(x, ["logits", *taps])
        for name in plain:
            plain[name].append(once[name][0])
            passes[name].append(many[name])
    return Sample(
        ids=split.ids,
        patients=tuple(e.patient_id for e in cohort.lesions("training")),
        classes=split.classes,
        labels=split.features.astype(np.float64),
        sizes_mm=split.sizes_mm,
        bases=split.bases,
        logits=np.stack(plain["logits"]),
        pass_logits=np.stack(passes["logits"]),
        plain={t: np.stack(plain[t]) for t in taps},
        averaged={t: np.stack([p.mean(axis=0) for p in passes[t]]) for t in taps},
    )


@pytest.fixture(scope="module")
def judged(sample: Sample, bundle: Bundle, model: Model) -> Judged:
    members = np.stack([sample.logits * 0.5, sample.logits[:, ::-1]])
    return judge(sample, bundle, model, members, (1.0, 2.0))


@pytest.fixture(scope="module")
def report(judged: Judged) -> dict[str, Any]:
    strange = replace(judged, classes=np.where(np.arange(len(judged.ids)) % 2, UNSEEN, 0))
    return measure_errors(
        judged, {"misregistered": judged, "unseen_class": strange}, draws=60, seed=1
    )


def test_every_key_of_the_report_is_there_and_is_json(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    keys = {
        "auroc", "ci", "max_softmax_auroc", "paired_ci", "human_features", "stress", "stress_wins",
        "risk_coverage", "features_on_mistakes", "flag", "scores", "n", "n_wrong",
    }  # fmt: skip
    assert keys <= set(report)
    assert set(report["scores"]) >= {"review", "max_softmax", "ensemble", "out_of_distribution"}
    assert set(report["human_features"]) == {"0", "10", "20"}
    assert report["stress"]["misregistered"]["what"] == KINDS["misregistered"]


def test_mistakes_are_counted_against_the_passes_verdict(
    judged: Judged, report: dict[str, Any]
) -> None:
    network = np.asarray(judged.opinions.shares["network"])
    wrong = network.argmax(axis=1) != judged.classes
    assert report["n_wrong"] == wrong.sum()
    assert report["n"] == len(wrong)
    unseen = report["stress"]["unseen_class"]
    assert unseen["n_wrong"] >= unseen["n"] // 2
    both = report["features_on_mistakes"]
    assert both["misclassified"]["n"] + both["correct"]["n"] == report["n"]


def test_a_cohort_compared_with_itself_gives_equal_figures(report: dict[str, Any]) -> None:
    same = report["stress"]["misregistered"]
    for key in ("auroc", "paired_ci", "human_features"):
        assert same[key] == report[key]


def test_wins_are_intervals_above_zero(report: dict[str, Any]) -> None:
    won = [k for k, r in report["stress"].items() if r["paired_ci"] and r["paired_ci"][0] > 0]
    assert report["stress_won"] == won
    assert report["stress_wins"] == len(won)


def test_a_readers_errors_grow_together_and_belong_to_the_lesion(judged: Judged) -> None:
    order = np.random.default_rng(0).permutation(len(judged.ids))
    shares = {e: np.asarray(p)[order] for e, p in judged.opinions.shares.items()}
    turned = replace(
        judged,
        ids=tuple(judged.ids[i] for i in order),
        classes=judged.classes[order],
        labels=judged.labels[order],
        opinions=replace(judged.opinions, shares=shares, ratios=judged.opinions.ratios[order]),
    )
    for share in SLIPS:
        np.testing.assert_allclose(
            turned.with_reader(share, 0).score, judged.with_reader(share, 0).score[order]
        )
    assert (judged.with_reader(0.2, 0).score != judged.with_reader(0.0, 0).score).any()


def test_scores_are_high_for_mistakes_not_for_confidence(judged: Judged) -> None:
    each = scores(judged)
    network = np.asarray(judged.opinions.shares["network"])
    assert each["max_softmax"][network.max(axis=1).argmax()] == each["max_softmax"].min()
    assert all(len(s) == len(judged.ids) and np.isfinite(s).all() for s in each.values())


def test_the_shortcut_report_counts_marked_and_unmarked(
    judged: Judged, sample: Sample, model: Model
) -> None:
    found = measure_shortcut(judged, sample, model, model, accuracy_like_training=0.9, draws=50)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    mass = found["gradient_mass_on_mark"]
    assert mass["marked_control_network"]["n"] == mass["marked"]["n"]
    assert mass["marked"]["n"] + mass["unmarked"]["n"] == len(sample)
    assert 0 < mass["share_of_volume"] < 0.02
    assert 0 <= mass["marked"]["value"] < 0.5
    assert found["named"] is False  # nobody marked these lesions


def test_a_bundle_without_judges_is_refused(bundle: Bundle, sample: Sample, model: Model) -> None:
    with pytest.raises(BundleError, match="review"):
        judge(sample, replace(bundle, judges=None), model)
