"""The explanation as a whole: pure, rounded, cancellable, and true to the network."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from models import voi
from models.bundle.read import Bundle
from models.errors import InputError
from models.passes import views
from models.reasons.explain import Result, document_bytes, explain
from models.reasons.maps import feature_goal
from models.recipes import Composed
from models.voi import Lesion
from tests.models.reasons.small_network import SPEC, SmallNetwork, lesion
from wire.api import ExplanationParameters
from wire.explanation import Explanation

FEW = ExplanationParameters(passes=12, seed=3, map_steps=8)


@pytest.fixture(scope="module")
def result(network: SmallNetwork, small_bundle: Bundle) -> Result:
    return explain(lesion(60), small_bundle, network, FEW)


class Jittered(Composed):
    """The same network on another machine: the last bit of every number differs."""

    def __init__(self, network: SmallNetwork) -> None:
        self._network = network
        self.info = network.info

    def forward(self, x: NDArray, outputs: Sequence[str]) -> dict[str, NDArray]:
        return _last_bit(self._network.forward(x, outputs))

    def gradients(
        self, x: NDArray, weights: Mapping[str, NDArray], wanted: Sequence[str] | None = None
    ) -> dict[str, NDArray]:
        return _last_bit(self._network.gradients(x, weights, wanted))


def _last_bit(values: dict[str, NDArray]) -> dict[str, NDArray]:
    return {k: np.nextafter(v, np.float32(np.inf), dtype=np.float32) for k, v in values.items()}


def test_same_question_same_bytes(
    result: Result, network: SmallNetwork, small_bundle: Bundle
) -> None:
    again = explain(lesion(60), small_bundle, network, FEW)
    assert document_bytes(again.document) == document_bytes(result.document)
    assert all(np.array_equal(again.maps[k], v) for k, v in result.maps.items())


def test_the_last_bit_of_a_number_does_not_change_the_document(
    result: Result, network: SmallNetwork, small_bundle: Bundle
) -> None:
    there = explain(lesion(60), small_bundle, Jittered(network), FEW)
    assert document_bytes(there.document) == document_bytes(result.document)


def test_nor_does_it_with_pairs_judges_and_a_reader(
    network: SmallNetwork, full_bundle: Bundle
) -> None:
    asked = FEW.model_copy(update={"reader_features": {"washout": "present"}})
    here, there = (
        explain(lesion(60), full_bundle, one, asked).document
        for one in (network, Jittered(network))
    )
    assert document_bytes(here) == document_bytes(there)


def test_another_seed_is_another_answer(
    result: Result, network: SmallNetwork, small_bundle: Bundle
) -> None:
    other = explain(lesion(60), small_bundle, network, FEW.model_copy(update={"seed": 4}))
    assert document_bytes(other.document) != document_bytes(result.document)


def test_bytes_read_back_as_the_document(result: Result) -> None:
    data = document_bytes(result.document)
    assert Explanation.model_validate_json(data) == result.document
    assert data.endswith(b"}\n")


def test_document_holds_no_place_and_no_long_number(result: Result) -> None:
    text = document_bytes(result.document).decode()
    assert socket.gethostname() not in text
    assert "/tmp" not in text
    for number in _floats(json.loads(text)):
        assert len(repr(number).lstrip("-0.").replace(".", "").rstrip("0")) <= 6, number


def _floats(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [f for v in value.values() for f in _floats(v)]
    if isinstance(value, list):
        return [f for v in value for f in _floats(v)]
    return [value] if isinstance(value, float) else []


def test_class_is_the_mean_over_passes(
    result: Result, network: SmallNetwork, small_bundle: Bundle
) -> None:
    base = voi.normalise(lesion(60), SPEC)
    x = views(base, SPEC, small_bundle.recipe, FEW.passes, FEW.seed)
    logits = network._run(x)["logits"] / small_bundle.temperature
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    best = int(shares.mean(axis=0).argmax())
    prediction = result.document.prediction
    assert prediction.class_id == small_bundle.manifest.classes[best]
    top = prediction.probabilities[0].probability
    assert top == pytest.approx(shares.mean(axis=0)[best], abs=1e-4)
    agreement = (shares.argmax(axis=1) == best).mean()
    assert prediction.pass_agreement == pytest.approx(agreement, abs=1e-4)
    assert sum(c.probability for c in prediction.probabilities) == pytest.approx(1, abs=1e-3)


def test_first_order_relevance_is_the_slope_of_the_centred_logit(
    result: Result, network: SmallNetwork, small_bundle: Bundle
) -> None:
    """Against finite differences: move a tap along the probe's step, watch the logit; two taps."""
    base = voi.normalise(lesion(60), SPEC)
    x = views(base, SPEC, small_bundle.recipe, FEW.passes, FEW.seed)
    pooled = network._run(x)["conv1"]
    chosen = small_bundle.manifest.classes.index(result.document.prediction.class_id)

    def centred(conv_step: NDArray, fc_step: NDArray) -> NDArray:
        fc = np.maximum((pooled + conv_step) @ network.dense.T, 0) + fc_step
        logits = fc @ network.head.T
        return logits[:, chosen] - logits.mean(axis=1)

    by_id = {f.id: f for f in result.document.features}
    for i, feature_id in enumerate(small_bundle.probes.features):
        step = small_bundle.probes.direction(i).astype(float) * 1e-5
        conv_step, fc_step = step[:10], step[10:]
        none_conv, none_fc = np.zeros(10), np.zeros(8)
        at_conv = (centred(conv_step, none_fc) - centred(-conv_step, none_fc)) / 2e-5
        at_fc = (centred(none_conv, fc_step) - centred(none_conv, -fc_step)) / 2e-5
        slopes = (at_conv + at_fc) / 2
        effect = by_id[feature_id].relevance.forms["first_order"]
        assert effect.value == pytest.approx(slopes.mean(), rel=5e-3, abs=2e-3)
        low, high = stats.t.interval(0.95, len(slopes) - 1, slopes.mean(), stats.sem(slopes))
        assert effect.ci == pytest.approx((low, high), rel=5e-3, abs=2e-3)


def test_features_agree_with_themselves(result: Result, small_bundle: Bundle) -> None:
    document = result.document
    assert {f.id for f in document.features} == set(small_bundle.manifest.features)
    for f in document.features:
        assert f.found == (f.probability >= f.threshold)
        assert set(f.scores) == set(small_bundle.probes.probes)
        assert f.ci is not None
        assert f.ci[0] <= f.probability <= f.ci[1]
        assert f.relevance.value == f.relevance.forms[f.relevance.form].value
    marks = [f.found for f in document.features]
    assert marks == sorted(marks, reverse=True)


def test_maps_are_those_of_the_document(result: Result) -> None:
    document = result.document
    assert [m.name for m in document.maps] == list(result.maps)
    assert document.maps[0].target == document.prediction.class_id
    found = [f.id for f in document.features if f.found]
    assert [m.target for m in document.maps[1:]] == found[:4]
    for entry in document.maps:
        array = result.maps[entry.name]
        assert array.shape == SPEC.shape(3)
        assert entry.max_abs == pytest.approx(np.abs(array).max(), rel=1e-2)
        assert sum(entry.share_by_phase.values()) == pytest.approx(1, abs=1e-3)


def test_feature_map_shares_out_the_log_odds_of_the_probe(
    result: Result, network: SmallNetwork, small_bundle: Bundle
) -> None:
    many = ExplanationParameters(passes=2, map_steps=128)
    drawn = explain(lesion(60), small_bundle, network, many)
    x, base = voi.tensor(lesion(60), SPEC), voi.normalise(lesion(60), SPEC)
    checked = 0
    for entry in drawn.document.maps[1:]:
        goal = feature_goal(entry.target, small_bundle, base, lesion(60).size_mm)
        out = network.forward(np.stack([x, goal.reference(x)]), ["conv1", "fc"])
        scores = small_bundle.probes.scores(small_bundle.probe_vector(out))
        i = small_bundle.probes.features.index(entry.target)
        kind = small_bundle.probes.kinds[i]
        slope = small_bundle.probes.probes[kind].slope[i]
        change = slope * (scores[kind][0, i] - scores[kind][1, i])
        assert drawn.maps[entry.name].sum() == pytest.approx(change, rel=0.05, abs=0.02)
        checked += 1
    assert checked > 0


def test_one_pass_has_no_interval(network: SmallNetwork, small_bundle: Bundle) -> None:
    one = explain(lesion(60), small_bundle, network, ExplanationParameters(passes=1, map_steps=1))
    assert all(f.relevance.forms["first_order"].ci is None for f in one.document.features)
    assert all(f.ci is None for f in one.document.features)
    assert "few_passes" in [c.code for c in one.document.cautions]


def test_progress_goes_forward_and_may_cancel(network: SmallNetwork, small_bundle: Bundle) -> None:
    told: list[tuple[str, float]] = []
    explain(lesion(61), small_bundle, network, FEW, lambda s, f: told.append((s, f)))
    fractions = [f for _, f in told]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
    stages = list(dict.fromkeys(s for s, _ in told))
    assert len(stages) == 5

    def stop(stage: str, fraction: float) -> None:
        if stage == stages[2]:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        explain(lesion(61), small_bundle, network, FEW, stop)


def test_identical_phases_and_a_single_slice_are_said(
    network: SmallNetwork, small_bundle: Bundle
) -> None:
    copy = lesion(62, slices=1, identical=True)
    document = explain(copy, small_bundle, network, FEW).document
    texts = {c.code: c.text for c in document.cautions}
    assert texts["phases_identical"].startswith(
        "The arterial, portal venous and delayed phases are one and the same image."
    )
    assert "single slice" in texts["single_slice"]


def test_two_identical_phases_are_named(network: SmallNetwork, small_bundle: Bundle) -> None:
    made = lesion(63)
    voxels = made.voxels.copy()
    voxels[2] = voxels[0] * 1.5 + 4
    copy = Lesion(voxels, made.phases, made.mm_per_voxel, made.size_mm, made.slices)
    texts = {c.code: c.text for c in explain(copy, small_bundle, network, FEW).document.cautions}
    assert texts["phases_identical"].startswith("The arterial and delayed phases are one")


def test_a_strange_lesion_is_said_to_lie_outside(
    network: SmallNetwork, small_bundle: Bundle
) -> None:
    rng = np.random.default_rng(0)
    made = lesion(64)
    voxels = (100 + 400 * rng.random(made.voxels.shape) ** 4).astype(np.float32)
    odd = Lesion(voxels, made.phases, made.mm_per_voxel, made.size_mm, made.slices)
    document = explain(odd, small_bundle, network, FEW).document
    assert document.out_of_distribution.flagged
    assert document.cautions[0].code == "out_of_distribution"
    assert document.text.startswith("This lesion lies outside of what the network knows")


def test_other_phases_are_refused(network: SmallNetwork, small_bundle: Bundle) -> None:
    made = lesion(65)
    other = Lesion(made.voxels[:2], made.phases[:2], made.mm_per_voxel, made.size_mm, made.slices)
    with pytest.raises(InputError) as caught:
        explain(other, small_bundle, network, FEW)
    assert caught.value.field == "phases"
