"""Trust cards of a real bundle: whole, deterministic, failed by a network that knows nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.cnn.data import SplitArrays, load_split
from models.cohort.format import Cohort, read_cohort
from services.training.randomised import randomised_model
from services.training.splits import take
from services.training.trust import METHODS, trust_cards

Held = tuple[Bundle, OnnxModel, SplitArrays, Cohort]


@pytest.fixture(scope="module")
def held(tiny_bundle: Path, tiny_cohort: Path) -> Held:
    bundle, cohort = read_bundle(tiny_bundle), read_cohort(tiny_cohort)
    split = load_split(cohort, "validation", bundle.vocabulary, bundle.preprocessing)
    return bundle, load_model(bundle), split, cohort


def test_shuffled_weights_keep_their_values_and_lose_what_was_learnt(held: Held) -> None:
    bundle, model, _, _ = held
    x = bundle.parity.x
    one, two, other = (randomised_model(bundle, seed) for seed in (1, 1, 2))
    logits = [m.forward(x, ["logits"])["logits"] for m in (model, one, two, other)]
    assert np.array_equal(logits[1], logits[2])
    assert not np.allclose(logits[0], logits[1])
    assert not np.allclose(logits[1], logits[3])
    weights = {"logits": np.ones((len(x), logits[0].shape[1]), np.float32)}
    slope = one.gradients(x, weights)["input"]
    step = (1e-2 * slope / np.abs(slope).max()).astype(np.float32)
    rise = (one.forward(x + step, ["logits"])["logits"] - logits[1]).sum()
    assert rise == pytest.approx(float((slope * step).sum()), rel=0.2)


def test_a_card_for_each_method_and_kind_whatever_the_order(held: Held) -> None:
    bundle, model, split, cohort = held
    quick = ("gradient_x_input",)
    cards = trust_cards(bundle, model, split, cohort=cohort, methods=quick)
    assert {(c.kind, c.method) for c in cards} == {
        (k, m) for k in ("feature", "class") for m in quick
    }
    turned = take(split, np.arange(len(split))[::-1])
    assert trust_cards(bundle, model, turned, cohort=cohort, methods=quick) == cards
    assert all(c.n > 0 and c.auprc is not None and c.randomisation is not None for c in cards)
    blind = trust_cards(bundle, model, split, methods=quick)
    assert all(c.auprc is None and c.pointing is None for c in blind)


def test_a_network_of_shuffled_weights_fails_the_gate(held: Held) -> None:
    bundle, _, split, cohort = held
    nothing = randomised_model(bundle, 5)
    cards = trust_cards(bundle, nothing, split, cohort=cohort, methods=METHODS[:1])
    assert cards
    assert not any(card.passed for card in cards)
