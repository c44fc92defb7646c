"""A network that may lack phases: what it costs, and that a lesion without them is not strange."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import load_model
from models.cohort.format import read_cohort, write_cohort
from models.cohort.load import load_lesion
from models.errors import LensError
from models.ood import OutOfDistributionScore
from models.reasons.predict import predict
from models.voi import centre, without
from services.training.activations import read_activations
from services.training.pipeline import train
from services.training.profiles import Profile
from services.training.splits import Splits, load_splits
from services.training.stages import Stages
from services.training.tolerance import patterns, tolerate
from tests.support.tiny_bundle import tiny_profile


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def config(bundle: Bundle) -> Profile:
    profile: Profile = tiny_profile().model_copy(update={"phase_dropout": 0.3})
    return profile


@pytest.fixture(scope="module")
def splits(tiny_cohort: Path, bundle: Bundle) -> Splits:
    return load_splits(read_cohort(tiny_cohort), bundle.vocabulary, bundle.preprocessing, Stages())


@pytest.fixture(scope="module")
def done(
    bundle: Bundle, splits: Splits, config: Profile
) -> tuple[OutOfDistributionScore, dict, list[tuple[int, int]]]:
    ticks: list[tuple[int, int]] = []
    score, figures = tolerate(
        bundle.path / "classifier.onnx",
        splits,
        bundle.vocabulary,
        config,
        bundle.ood,
        1.0,
        0,
        lambda i, n: ticks.append((i, n)),
    )
    return score, figures, ticks


NAMES = ["portal_venous", "delayed", "portal_venous+delayed"]


def test_every_set_of_optional_phases_once() -> None:
    assert ["+".join(p) for p in patterns(["portal_venous", "delayed"])] == NAMES
    assert list(patterns([])) == []
    assert len(list(patterns("abcd"))) == 15


def test_each_pattern_has_a_score_and_figures(done) -> None:  # type: ignore[no-untyped-def]
    score, figures, ticks = done
    assert list(score.partial) == list(figures) == NAMES
    assert ticks[-1][0] == ticks[-1][1]
    assert [i for i, _ in ticks] == sorted(i for i, _ in ticks)
    for figure in figures.values():
        assert figure["split"] == "test"
        assert figure["n"] == 12
        assert figure["ci"][0] <= figure["accuracy"] <= figure["ci"][1]
    json.dumps(figures)


def test_a_lesion_without_a_phase_is_compared_with_its_like(  # type: ignore[no-untyped-def]
    done, bundle: Bundle, splits: Splits
) -> None:
    """Strange to the score of complete lesions, usual to its own."""
    score = done[0]
    spec = bundle.preprocessing
    test = splits.test
    lacking = replace(test, bases=np.stack([without(b, [2], spec) for b in test.bases]))
    classifier = bundle.path / "classifier.onnx"
    at = read_activations(classifier, lacking, score.taps, spec, bundle.recipe, 0)
    h = score.read(at.plain, np.stack([centre(b, spec) for b in lacking.bases]))
    own = score.without(["delayed"])
    assert own is score.partial["delayed"]
    strange, usual = score.scores(h) / score.threshold, own.scores(h) / own.threshold
    assert np.median(strange) > 2 * np.median(usual)
    assert np.mean(strange > 1) > 0.9
    assert np.mean(usual > 1) < 0.5  # the threshold rests on twelve validation lesions


def test_it_survives_the_bundles_files(done) -> None:  # type: ignore[no-untyped-def]
    score = done[0]
    tensors, meta = score.to_parts()
    back = OutOfDistributionScore.from_parts(tensors, json.loads(json.dumps(meta)))
    assert list(back.partial) == NAMES
    h = np.random.default_rng(0).normal(size=score.length)
    for missing in ([], ["delayed"], ["portal_venous", "delayed"]):
        assert back.without(missing).score(h) == score.without(missing).score(h)
        assert back.without(missing).threshold == score.without(missing).threshold
    del tensors["partial/delayed/mean"]
    with pytest.raises(KeyError):
        OutOfDistributionScore.from_parts(tensors, meta)


def test_without_phase_dropout_nothing_is_measured(
    bundle: Bundle, splits: Splits, config: Profile
) -> None:
    strict = config.model_copy(update={"phase_dropout": 0.0})
    score, figures = tolerate(
        bundle.path / "classifier.onnx", splits, bundle.vocabulary, strict, bundle.ood, 1.0, 0,
        lambda i, n: None,
    )  # fmt: skip
    assert (score.partial, figures) == ({}, {})
    assert "partial" not in score.to_parts()[1]


@pytest.mark.system
def test_trained_on_a_cohort_with_gaps_it_serves_studies_with_gaps(
    tiny_cohort: Path, config: Profile, tmp_path: Path
) -> None:
    """The whole way: phase dropout in, lesions without a phase in every split, a bundle out."""
    whole = read_cohort(tiny_cohort)
    shutil.copytree(tiny_cohort, tmp_path / "cohort")
    splits = {}
    for name in ("training", "validation", "test"):
        first, *rest = whole.lesions(name)
        gap = {
            key: {p: v for p, v in getattr(first, key).items() if p != "delayed"}
            for key in ("image", "voi")
        }
        splits[name] = [first.model_copy(update=gap), *rest]
    write_cohort(tmp_path / "cohort", whole.file.model_copy(update=splits))
    with pytest.raises(LensError, match="missing phase: delayed"):
        train(tmp_path / "cohort", tmp_path / "strict", tiny_profile(), 0, store=False)
    quick = config.model_copy(
        update={"optimisation": config.optimisation.model_copy(update={"epochs": 1})}
    )
    result = train(tmp_path / "cohort", tmp_path / "out", quick, 0, store=False)
    bundle = read_bundle(result.bundle)
    assert bundle.manifest.optional_phases == ["portal_venous", "delayed"]
    assert set(bundle.ood.partial) == set(NAMES)
    cohort = read_cohort(tmp_path / "cohort")
    lesion = load_lesion(
        cohort,
        cohort.lesions("test")[0],
        bundle.manifest.phases,
        bundle.preprocessing,
        bundle.manifest.optional_phases,
    )
    assert lesion.missing == ("delayed",)
    answer = predict(lesion, bundle, load_model(bundle))
    own = bundle.ood.partial["delayed"].threshold
    assert answer.out_of_distribution.threshold == pytest.approx(own, rel=1e-3)
    assert "phase_missing" in [c.code for c in answer.cautions]
    assert "Test accuracy (95 %): without" in bundle.card
