"""Every map method: one shape, zero means zero, the same numbers whoever shares the batch."""

from __future__ import annotations

import numpy as np
import pytest

from models.attribution.goal import Goal, Settings, centred_logit
from models.attribution.registry import DEFAULT, METHODS, method
from models.errors import InputError
from models.voi import tensor
from tests.models.reasons.small_network import SPEC, SmallNetwork, lesion

CLASS = {"logits": centred_logit(1, 6)}
SETTINGS = Settings(steps=4, window=4, stride=4)


def image(seed: int) -> np.ndarray:
    return tensor(lesion(seed), SPEC)


@pytest.mark.parametrize("name", METHODS)
def test_each_goal_has_its_own_map_whatever_stands_beside_it(name: str) -> None:
    network, x = SmallNetwork(0), image(0)
    goals = [Goal(CLASS), Goal({"fc": np.ones(8, np.float32)}), Goal(CLASS, 0.5 * x)]
    together = METHODS[name](network, x, goals, SETTINGS)
    for goal, found in zip(goals, together, strict=True):
        alone = METHODS[name](network, x, [goal], SETTINGS)[0]
        assert found.map.dtype == np.float32
        assert found.map.shape == x.shape
        assert np.allclose(alone.map, found.map, atol=1e-7)
    assert not np.array_equal(together[0].map, together[1].map)


@pytest.mark.parametrize("name", METHODS)
def test_a_target_that_reads_nothing_has_an_empty_map(name: str) -> None:
    nothing = Goal({"fc": np.zeros(8)})
    found = METHODS[name](SmallNetwork(0), image(0), [nothing], SETTINGS)[0]
    assert found.change == 0
    assert found.max_abs == 0
    assert found.completeness_error is None


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"grad_cam"}))
def test_what_equals_the_baseline_gets_nothing(name: str) -> None:
    x = image(1)
    baseline = x.copy()
    baseline[2, :4] -= 1
    found = METHODS[name](SmallNetwork(0), x, [Goal(CLASS, baseline)], SETTINGS)[0]
    assert np.abs(found.map[:2]).max() == 0
    assert np.abs(found.map[2, 4:]).max() == 0
    assert np.abs(found.map[2, :4]).max() > 0


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_bytes_and_twice_the_target_twice_the_map(name: str) -> None:
    network, x = SmallNetwork(0), image(2)
    goals = [Goal(CLASS), Goal(CLASS), Goal({"logits": 2 * CLASS["logits"]})]
    once, again, twice = METHODS[name](network, x, goals, SETTINGS)
    assert once.map.tobytes() == again.map.tobytes()
    assert np.allclose(2 * once.map, twice.map, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", METHODS)
def test_a_phase_that_was_not_acquired_stays_dark(name: str) -> None:
    x = image(3)
    x[1] = 0
    found = METHODS[name](SmallNetwork(0), x, [Goal(CLASS)], SETTINGS)[0]
    if name != "grad_cam":  # its layer has joined the phases
        assert np.abs(found.map[1]).max() == 0


@pytest.mark.parametrize("name", METHODS)
def test_progress_may_stop_the_work(name: str) -> None:
    def tick(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        METHODS[name](SmallNetwork(0), image(0), [Goal(CLASS)], SETTINGS, tick)


def test_occlusion_of_all_is_the_change_itself() -> None:
    x = image(4)
    whole = Settings(window=12, stride=12)
    x[1:] = 0  # one phase: the only cube is the whole lesion
    found = METHODS["occlusion"](SmallNetwork(0), x, [Goal(CLASS)], whole)[0]
    assert found.map.sum() == pytest.approx(found.change, rel=1e-4)


def test_grad_cam_is_never_negative_and_the_same_in_each_phase() -> None:
    found = METHODS["grad_cam"](SmallNetwork(0), image(5), [Goal(CLASS)], SETTINGS)[0].map
    assert found.min() >= 0
    assert np.array_equal(found[0], found[2])


def test_grad_cam_refuses_a_layer_without_a_map() -> None:
    with pytest.raises(InputError) as raised:
        METHODS["grad_cam"](SmallNetwork(0), image(5), [Goal(CLASS)], Settings(cam_tap="fc"))
    assert raised.value.code == "no_map"


def test_smoothgrad_without_noise_is_gradient_times_input() -> None:
    network, x = SmallNetwork(0), image(6)
    quiet = Settings(steps=3, noise=0.0)
    smooth = METHODS["smoothgrad"](network, x, [Goal(CLASS)], quiet)[0].map
    plain = METHODS["gradient_x_input"](network, x, [Goal(CLASS)])[0].map
    assert np.allclose(smooth, plain, atol=1e-6)


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(InputError) as raised:
        method("magic")
    assert raised.value.code == "unknown_method"
    assert "occlusion" in str(raised.value.expected)
    assert set(DEFAULT.values()) <= set(METHODS)
