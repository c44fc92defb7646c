"""The whole training on a small cohort, for real: from NIfTI files to a bundle that serves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.cohort.format import read_cohort, write_cohort
from models.cohort.load import load_lesion
from models.errors import CohortError, InputError
from models.passes import views
from models.probes.labelling import choose_labelled
from models.vocabulary import liver_mri
from models.voi import normalise, tensor
from services.training.activations import PASS_SEED
from services.training.pipeline import TrainResult, train
from services.training.profiles import Profile, profile
from services.training.stages import Report, Stages
from services.training.vocabularies import vocabulary_of
from tests.support.tiny_bundle import tiny_profile


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> OnnxModel:
    return load_model(bundle)


def short() -> Profile:
    base = tiny_profile()
    return base.model_copy(
        update={
            "passes": 2,
            "reference_passes": 1,
            "pairs": 1,
            "trust": False,
            "optimisation": base.optimisation.model_copy(update={"epochs": 1}),
        }
    )


@pytest.fixture(scope="module")
def trained(
    tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, list[Report]]:
    heard: list[Report] = []
    out = tmp_path_factory.mktemp("train")
    return train(tiny_cohort, out, short(), 5, progress=heard.append, store=False), heard


def test_result_says_what_was_done(trained: tuple[TrainResult, list[Report]]) -> None:
    result, heard = trained
    order = ["load", "fit", "export", "parity", "activations", "measurements", "calibrate",
             "probes", "pairs", "review", "evaluation", "trust", "bundle"]  # fmt: skip
    assert list(result.stages) == order
    assert [r.stage for r in heard if r.seconds is not None] == order
    assert (result.n_train, result.n_validation, result.n_test) == (36, 12, 12)
    assert 0 <= result.test_ci[0] <= result.test_accuracy <= result.test_ci[1] <= 1
    assert result.parity_max_abs < 1e-3
    assert result.gradient_parity < 1e-4
    assert result.hash == read_bundle(result.bundle).hash
    written = json.loads((result.bundle.parent / "train.json").read_text())
    assert written["hash"] == result.hash


def test_the_same_run_gives_the_same_bundle(
    trained: tuple[TrainResult, list[Report]], tiny_cohort: Path, tmp_path: Path
) -> None:
    again = train(tiny_cohort, tmp_path, short(), 5, store=False)
    first = trained[0].bundle
    for name in sorted(p.name for p in first.iterdir()):
        assert (first / name).read_bytes() == (again.bundle / name).read_bytes(), name
    assert again.hash == trained[0].hash


def test_bundle_holds_what_the_cohort_says(bundle: Bundle, tiny_cohort: Path) -> None:
    cohort = read_cohort(tiny_cohort)
    training = cohort.lesions("training")
    assert bundle.manifest.synthetic is True
    assert bundle.vocabulary.class_ids == cohort.file.classes
    # Validation and test lesions must never be in what probes compare with.
    assert bundle.reference.lesion_ids == [e.lesion_id for e in training]
    assert bundle.reference.class_ids == [e.class_id for e in training]
    record = json.loads((bundle.path / "training.json").read_text())
    assert set(record["labelled_lesions"]) <= {e.lesion_id for e in training}
    assert record["cohort"] == cohort.hash
    assert [q.split for q in bundle.probes.quality] == ["validation"] * 14


def test_reference_is_what_serving_would_compute(
    bundle: Bundle, model: OnnxModel, tiny_cohort: Path
) -> None:
    cohort = read_cohort(tiny_cohort)
    record = json.loads((bundle.path / "training.json").read_text())
    i = 3
    entry = cohort.lesions("training")[i]
    labelled = entry.lesion_id in record["labelled_lesions"]
    count = record["config"]["passes" if labelled else "reference_passes"]
    spec = bundle.preprocessing
    base = normalise(load_lesion(cohort, entry, bundle.vocabulary.phase_ids, spec), spec)
    x = views(base, spec, bundle.recipe, count, PASS_SEED)
    values = model.forward(x, bundle.manifest.probe_taps)
    averaged = bundle.evidence.tap_vector(values).mean(axis=0)
    np.testing.assert_allclose(averaged, bundle.reference.activations[i], rtol=1e-4, atol=1e-5)


def test_bundle_can_give_reasons(bundle: Bundle) -> None:
    assert bundle.manifest.measurements
    assert bundle.probes.length == bundle.evidence.length
    assert bundle.directions is not None
    assert bundle.directions.origin == "rendering"
    assert bundle.directions.counts.max() <= tiny_profile().pairs
    assert bundle.judges is not None
    assert bundle.judges.image is not None
    assert set(bundle.judges.quality) == {"probes", "reader"}
    assert {(c.kind, c.method) for c in bundle.trust} >= {
        ("class", "integrated_gradients"),
        ("feature", "integrated_gradients"),
    }


def test_evaluation_is_of_the_test_split(
    bundle: Bundle, model: OnnxModel, tiny_cohort: Path
) -> None:
    cohort = read_cohort(tiny_cohort)
    entries = cohort.lesions("test")
    spec = bundle.preprocessing
    x = np.stack(
        [tensor(load_lesion(cohort, e, bundle.vocabulary.phase_ids, spec), spec) for e in entries]
    )
    top = model.forward(x, ["logits"])["logits"].argmax(axis=1)
    right = [
        bundle.vocabulary.class_ids[t] == e.class_id for t, e in zip(top, entries, strict=True)
    ]
    evaluation = json.loads((bundle.path / "evaluation.json").read_text())
    assert evaluation["classifier"]["split"] == "test"
    assert evaluation["classifier"]["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert evaluation["features"]["split"] == "test"
    assert evaluation["parity"]["max_abs"] < 1e-3


def test_stored_parity_sample_is_met_tightly(model: OnnxModel) -> None:
    assert max(model.check_parity().values()) < 1e-3


def test_labelled_lesions_are_few_enough_and_enough() -> None:
    rng = np.random.default_rng(0)
    features = (rng.random((300, 14)) < 0.2).astype(np.float32)
    features[:, 13] = 0
    features[:4, 13] = 1  # fewer than asked for: all of them
    features[250:, 2] = np.nan
    chosen = choose_labelled(features, 10, seed=3)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) <= 10 * 13 + 4
    present = (features[chosen] == 1).sum(axis=0)
    assert (present[:13] >= 10).all()
    assert present[13] == 4
    assert chosen.max() < 250  # lesions on which everything was assessed go first
    np.testing.assert_array_equal(chosen, choose_labelled(features, 10, seed=3))
    assert not np.array_equal(chosen, choose_labelled(features, 10, seed=4))


def test_vocabulary_follows_the_cohort(tiny_cohort: Path) -> None:
    cohort = read_cohort(tiny_cohort)
    assert vocabulary_of(cohort) == liver_mri()
    other = cohort.file.model_copy(
        update={"classes": ["cyst", "focal_fat"], "features": ["thin_walled", "washout", "own_one"]}
    )
    vocabulary = vocabulary_of(type(cohort)(cohort.root, other))
    assert vocabulary.class_ids == ["cyst", "focal_fat"]
    assert vocabulary.lesion_class("focal_fat").label == "focal fat"
    assert vocabulary.feature("washout").typical_of == []
    assert vocabulary.feature("thin_walled").typical_of == ["cyst"]


def test_a_cohort_without_a_split_is_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    cohort = read_cohort(tiny_cohort)
    shutil.copytree(tiny_cohort, tmp_path / "c")
    write_cohort(tmp_path / "c", cohort.file.model_copy(update={"validation": []}))
    with pytest.raises(CohortError, match="validation: no lesions"):
        train(tmp_path / "c", tmp_path / "out", short(), 0, store=False)


def test_profiles() -> None:
    assert profile("demo", epochs=3).optimisation.epochs == 3
    with pytest.raises(InputError, match="no such profile"):
        profile("fancy")
    one, two = profile("demo"), profile("demo", epochs=7)
    assert one.digest("c") == profile("demo").digest("c")
    assert len({one.digest("c"), two.digest("c"), one.digest("d")}) == 3


def test_stages_that_fail_are_not_finished() -> None:
    heard: list[Report] = []
    stages = Stages(heard.append)
    with pytest.raises(RuntimeError), stages.stage("one", "doing"):
        raise RuntimeError
    assert stages.seconds == {}
    assert [r.seconds for r in heard] == [None]
