"""Integrated gradients: completeness, sensitivity, and numbers that don't depend on batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attribution import chunked
from models.attribution.goal import Attribution, Goal, Settings, centred_logit
from models.attribution.integrated import integrated_gradients
from models.recipes import CHUNK
from models.voi import tensor
from tests.models.reasons.small_network import SPEC, SmallNetwork, lesion

TARGET = {"logits": centred_logit(2, 6)}


def drawn_by(network: SmallNetwork, x: np.ndarray, weights: dict, steps: int) -> Attribution:
    return integrated_gradients(network, x, [Goal(weights)], Settings(steps=steps))[0]


def image(seed: int) -> np.ndarray:
    return tensor(lesion(seed), SPEC)


def test_network_of_the_tests_has_exact_gradients() -> None:
    network, x = SmallNetwork(1), image(0).astype(np.float64)
    weights = {"logits": np.array([[0.3, -1, 0.2, 0.5, 0, 1.0]]), "conv1": np.ones((1, 10))}

    def value(z: np.ndarray) -> float:
        out = network._run(z[None])
        return float(sum((weights[k] * out[k]).sum() for k in weights))

    found = network.gradients(x[None].astype(np.float32), weights)["input"][0]
    for place in [(0, 6, 6, 6), (2, 3, 8, 5), (1, 0, 0, 0)]:
        step = np.zeros_like(x)
        step[place] = 1e-5
        slope = (value(x + step) - value(x - step)) / 2e-5
        assert found[place] == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_centred_weights_sum_to_zero() -> None:
    weights = centred_logit(4, 6)
    assert weights.sum() == pytest.approx(0, abs=1e-6)
    assert weights.argmax() == 4


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 500), lesion_seed=st.integers(0, 500))
def test_map_adds_up_to_the_change_of_the_target(seed: int, lesion_seed: int) -> None:
    network, x = SmallNetwork(seed), image(lesion_seed)
    drawn = drawn_by(network, x, TARGET, 64)
    logits = network.forward(np.stack([x, np.zeros_like(x)]), ["logits"])["logits"]
    change = float((logits[0] - logits[1]) @ TARGET["logits"])
    assert drawn.change == pytest.approx(change, abs=1e-4)
    assert drawn.map.sum() == pytest.approx(change, abs=0.02 + 0.02 * abs(change))


def test_one_step_is_exact_where_the_network_is_homogeneous() -> None:
    drawn = drawn_by(SmallNetwork(0, bias=0.0), image(1), TARGET, 1)
    assert drawn.completeness_error == pytest.approx(0, abs=1e-4)


def test_more_steps_come_nearer() -> None:
    network, x = SmallNetwork(3), image(2)
    few, many = (drawn_by(network, x, TARGET, n).completeness_error for n in (1, 64))
    assert few is not None
    assert many is not None
    assert many < few


def test_what_equals_parenchyma_gets_nothing() -> None:
    x = image(3)
    x[:, :4] = 0
    drawn = drawn_by(SmallNetwork(0), x, TARGET, 8)
    assert np.abs(drawn.map[:, :4]).max() == 0
    assert np.abs(drawn.map[:, 4:]).max() > 0


def test_two_lesions_have_two_maps() -> None:
    network = SmallNetwork(0)
    one, two = (drawn_by(network, image(s), TARGET, 8).map for s in (1, 2))
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] < 0.99


def test_pooled_taps_are_targets_too() -> None:
    network, x = SmallNetwork(0), image(4)
    weights = np.linspace(-1, 1, 8).astype(np.float32)
    drawn = drawn_by(network, x, {"fc": weights}, 64)
    fc = network.forward(np.stack([x, np.zeros_like(x)]), ["fc"])["fc"]
    assert drawn.map.sum() == pytest.approx(float((fc[0] - fc[1]) @ weights), abs=0.02)


def test_shares_and_errors_of_an_empty_map() -> None:
    nothing = Attribution(np.zeros((3, 4, 4, 4), np.float32), 0.0)
    assert nothing.completeness_error is None
    assert nothing.share_by_phase.tolist() == [0, 0, 0]
    assert nothing.max_abs == 0


@pytest.mark.parametrize("rows", [1, 8, 9, 25])
def test_chunks_depend_on_the_count_alone(rows: int) -> None:
    network = SmallNetwork(0)
    x = np.stack([image(i % 4) for i in range(rows)])
    joined = chunked.forward(network, x, ["logits", "fc"])
    assert network.calls == [CHUNK] * (rows // 8) + [rows % 8] * (rows % 8 > 0)
    assert joined["logits"].shape == (rows, 6)
    slopes = chunked.gradients(network, x, TARGET, ["input", "conv1"])
    assert slopes["input"].shape == x.shape
    assert set(slopes) == {"input", "conv1"}


def test_a_tick_that_raises_stops_the_work() -> None:
    network = SmallNetwork(0)

    def tick(fraction: float) -> None:
        if fraction > 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        integrated_gradients(network, image(0), [Goal(TARGET)], Settings(steps=64), tick)
    assert network.calls == [1, 1, 8, 8, 8, 8]  # both ends, the points of one request


def test_a_baseline_shares_out_the_difference_from_it() -> None:
    network, x = SmallNetwork(0), image(5)
    near = x.copy()
    near[1, 4:8, 4:8, 4:8] += 0.3
    plain, edited = integrated_gradients(
        network, x, [Goal(TARGET), Goal(TARGET, near)], Settings(steps=32)
    )
    logits = network.forward(np.stack([x, near]), ["logits"])["logits"]
    assert edited.change == pytest.approx(
        float((logits[0] - logits[1]) @ TARGET["logits"]), abs=1e-5
    )
    assert edited.map.sum() == pytest.approx(edited.change, abs=1e-3)
    assert np.count_nonzero(edited.map) == 64
    assert np.count_nonzero(plain.map) > 64


def test_goals_do_not_disturb_each_other() -> None:
    network, x = SmallNetwork(0), image(6)
    goals = [Goal(TARGET), Goal({"fc": np.ones(8, np.float32)}), Goal(TARGET, 0.5 * x)]
    together = integrated_gradients(network, x, goals, Settings(steps=4))
    for goal, found in zip(goals, together, strict=True):
        alone = integrated_gradients(network, x, [goal], Settings(steps=4))[0]
        assert np.array_equal(alone.map, found.map)
        assert alone.change == pytest.approx(found.change, abs=1e-6)
