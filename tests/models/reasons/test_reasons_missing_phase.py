"""A phase that was not acquired: tolerated where the network allows, and said aloud."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from models.bundle.read import Bundle
from models.errors import InputError
from models.reasons.explain import document_bytes, explain
from models.reasons.predict import predict
from models.voi import Lesion
from tests.models.reasons.small_network import SmallNetwork, lesion
from wire.api import ExplanationParameters
from wire.explanation import Explanation

FEW = ExplanationParameters(passes=12, seed=3, map_steps=4)


def without(seed: int, *missing: str) -> Lesion:
    made = lesion(seed)
    voxels = made.voxels.copy()
    voxels[[made.phases.index(p) for p in missing]] = 0
    return replace(made, voxels=voxels, missing=missing)


@pytest.fixture(scope="module")
def tolerant(small_bundle: Bundle) -> Bundle:
    """The bundle as if its network had been trained with phase dropout."""
    optional = {"optional_phases": small_bundle.manifest.phases[1:]}
    return replace(small_bundle, manifest=small_bundle.manifest.model_copy(update=optional))


@pytest.fixture(scope="module")
def document(network: SmallNetwork, tolerant: Bundle) -> Explanation:
    return explain(without(60, "delayed"), tolerant, network, FEW).document


def test_the_document_names_the_phase_and_what_rests_on_it(document: Explanation) -> None:
    assert document.lesion.phases == ["arterial", "portal_venous", "delayed"]
    assert document.lesion.missing_phases == ["delayed"]
    (caution,) = [c for c in document.cautions if c.code == "phase_missing"]
    assert caution.text.startswith("The delayed phase was not acquired.")
    assert "Cannot be judged without it: delayed phase hyperenhancement." in caution.text
    assert "Less reliable, for want of a phase: washout, enhancing capsule" in caution.text
    assert "arterial phase hyperenhancement" not in caution.text
    lacking = {f.id: f.missing_phases for f in document.features}
    assert lacking["washout"] == ["delayed"]
    assert lacking["arterial_hyperenhancement"] == lacking["thin_walled"] == []


def test_what_only_the_missing_phase_shows_is_not_called_found(
    network: SmallNetwork, tolerant: Bundle
) -> None:
    seen_high = False
    for seed in range(60, 72):
        document = explain(without(seed, "delayed"), tolerant, network, FEW).document
        blind = next(f for f in document.features if f.id == "delayed_hyperenhancement")
        seen_high |= blind.probability >= blind.threshold
        assert not blind.found
        assert not blind.assessable
        assert [f.id for f in document.features if not f.assessable] == [blind.id]
        for f in document.features:
            assert f.found == (f.assessable and f.probability >= f.threshold)
    assert seen_high  # else this shows nothing


def test_no_evidence_lies_in_a_phase_that_is_not_there(
    network: SmallNetwork, tolerant: Bundle
) -> None:
    result = explain(without(60, "delayed"), tolerant, network, FEW)
    assert result.maps
    for entry in result.document.maps:
        assert not result.maps[entry.name][2].any()
        assert result.maps[entry.name][:2].any()
        assert entry.share_by_phase["delayed"] == 0
        assert sum(entry.share_by_phase.values()) == pytest.approx(1, abs=1e-3)


def test_one_phase_alone_cannot_show_enhancement_over_time(
    network: SmallNetwork, tolerant: Bundle
) -> None:
    answer = predict(without(60, "portal_venous", "delayed"), tolerant, network)
    (caution,) = [c for c in answer.cautions if c.code == "phase_missing"]
    assert caution.text.startswith("The portal venous and delayed phases were not acquired.")
    assert "Enhancement over time cannot be judged" in caution.text


def test_a_complete_document_does_not_speak_of_it(
    network: SmallNetwork, small_bundle: Bundle, tolerant: Bundle
) -> None:
    plain, lenient = (
        document_bytes(explain(lesion(60), bundle, network, FEW).document)
        for bundle in (small_bundle, tolerant)
    )
    assert plain == lenient
    assert b"missing_phases" not in plain
    assert b"assessable" not in plain
    assert "phase_missing" not in [c["code"] for c in json.loads(plain)["cautions"]]


def test_document_reads_back(document: Explanation) -> None:
    assert Explanation.model_validate_json(document_bytes(document)) == document


def test_refused_by_a_network_that_needs_it(network: SmallNetwork, small_bundle: Bundle) -> None:
    for call in (
        lambda: predict(without(60, "delayed"), small_bundle, network),
        lambda: explain(without(60, "delayed"), small_bundle, network, FEW),
    ):
        with pytest.raises(InputError, match="missing phase: delayed") as refused:
            call()
        assert refused.value.code == "missing_phase"
        assert "not trained with phase dropout" in refused.value.line


def test_the_review_goes_on_without_the_image_and_without_what_cannot_be_judged(
    network: SmallNetwork, full_bundle: Bundle
) -> None:
    optional = {"optional_phases": full_bundle.manifest.phases[1:]}
    tolerant = replace(full_bundle, manifest=full_bundle.manifest.model_copy(update=optional))
    document = explain(without(60, "delayed"), tolerant, network, FEW).document
    assert document.review is not None
    assert set(document.review.components) == {
        "network", "surroundings", "features", "out_of_distribution",
    }  # fmt: skip
    (fit,) = document.consistency
    assert fit.n_features == 13  # all but delayed phase hyperenhancement
    assert "delayed_hyperenhancement" not in fit.expected_missing


def test_the_first_phase_is_always_needed(network: SmallNetwork, tolerant: Bundle) -> None:
    with pytest.raises(InputError, match="missing phase: arterial"):
        predict(without(60, "arterial"), tolerant, network)


def test_a_vocabulary_that_does_not_say_what_rests_on_a_phase(
    network: SmallNetwork, tolerant: Bundle
) -> None:
    silent = tolerant.vocabulary.model_copy(
        update={
            "features": [
                f.model_copy(update={"judged_on": []}) for f in tolerant.vocabulary.features
            ]
        }
    )
    answer = predict(without(60, "delayed"), replace(tolerant, vocabulary=silent), network)
    (caution,) = [c for c in answer.cautions if c.code == "phase_missing"]
    assert "judged" not in caution.text
    assert "reliable" not in caution.text


def test_a_missing_phase_changes_the_answer_but_not_its_determinism(
    network: SmallNetwork, tolerant: Bundle
) -> None:
    whole = predict(lesion(60), tolerant, network)
    one, again = (predict(without(60, "delayed"), tolerant, network) for _ in range(2))
    assert one == again
    assert not np.allclose(one.logits, whole.logits)
