"""Recipes composed from forward and gradients: what a model without a shorter way answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.attribution import chunked
from models.attribution.goal import centred_logit
from models.passes import PassRecipe, views
from models.recipes import Draw, Line
from models.voi import normalise, tensor
from tests.models.reasons.small_network import SPEC, SmallNetwork, lesion

WEIGHTS = {"logits": centred_logit(1, 6)}


@pytest.fixture
def draw() -> Draw:
    return Draw(normalise(lesion(4), SPEC), SPEC, PassRecipe(), count=11, seed=3)


def image(seed: int) -> np.ndarray:
    return tensor(lesion(seed), SPEC)


def test_passes_are_outputs_and_gradients_of_the_views(draw: Draw) -> None:
    network = SmallNetwork(0)
    found = network.passes(draw, ["logits", "fc", "grad_conv1"], WEIGHTS)
    x = views(draw.base, SPEC, draw.recipe, 11, 3)
    expected = network.forward(x, ["logits", "fc"])
    slopes = network.gradients(x, {"logits": np.tile(WEIGHTS["logits"], (11, 1))})
    assert list(found) == ["logits", "fc", "grad_conv1"]
    for name, value in {**expected, "grad_conv1": slopes["conv1"]}.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_passes_in_parts_are_the_same_passes(draw: Draw) -> None:
    network = SmallNetwork(0)
    whole = network.passes(draw, ["logits"], WEIGHTS)["logits"]
    parts = [
        network.passes(replace(draw, first=first, count=count), ["logits"], WEIGHTS)["logits"]
        for first, count in ((0, 4), (4, 7))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)


def test_many_passes_go_in_several_requests(draw: Draw) -> None:
    network, told = SmallNetwork(0), []
    many = replace(draw, count=chunked.PASSES + 3)
    found = chunked.passes(network, many, ["logits"], WEIGHTS, told.append)
    assert found["logits"].shape == (chunked.PASSES + 3, 6)
    assert told == [0.0, chunked.PASSES / (chunked.PASSES + 3)]


def test_a_path_has_the_mean_gradient_and_the_change() -> None:
    network, x = SmallNetwork(0), image(2)
    start = 0.25 * x
    found = network.paths(Line(x, start[None], steps=5), {"logits": WEIGHTS["logits"][None]})
    points = [start + (k + 0.5) / 5 * (x - start) for k in range(5)]
    rows = np.stack(points).astype(np.float32)
    slopes = network.gradients(rows, {"logits": np.tile(WEIGHTS["logits"], (5, 1))})["input"]
    np.testing.assert_allclose(found["gradient"][0], slopes.mean(axis=0), rtol=1e-4, atol=1e-6)
    ends = network.forward(np.stack([x, start]), ["logits"])["logits"] @ WEIGHTS["logits"]
    assert found["change"][0] == pytest.approx(ends[0] - ends[1], abs=1e-5)


def test_goals_with_one_comparison_stand_side_by_side() -> None:
    network, x = SmallNetwork(0), image(2)
    near = 0.5 * x
    goals = [near, np.zeros_like(x), near]
    weights = {"logits": np.stack([centred_logit(i, 6) for i in range(3)])}
    assert Line(x, np.stack(goals), 4).groups() == [[0, 2], [1]]
    together = network.paths(Line(x, np.stack(goals), 4), weights)
    for i, start in enumerate(goals):
        alone = network.paths(Line(x, start[None], 4), {"logits": weights["logits"][i : i + 1]})
        np.testing.assert_array_equal(together["gradient"][i], alone["gradient"][0])
        assert together["change"][i] == alone["change"][0]


def test_a_long_path_is_followed_in_parts() -> None:
    network, x, told = SmallNetwork(0), image(1), []
    steps = 2 * chunked.EVALUATIONS + 5
    found, change = chunked.paths(network, x, [0.5 * x], [WEIGHTS], steps, told.append)
    whole = network.paths(Line(x, 0.5 * x[None], steps), {"logits": WEIGHTS["logits"][None]})
    np.testing.assert_allclose(found[0], whole["gradient"][0], rtol=1e-5, atol=1e-7)
    assert change[0] == whole["change"][0]
    assert told == [0.0, chunked.EVALUATIONS / steps, 2 * chunked.EVALUATIONS / steps]


def test_requests_hold_goals_of_one_kind_and_no_more_than_their_share() -> None:
    network, x = SmallNetwork(0), image(3)
    weights = [WEIGHTS, {"fc": np.ones(8, np.float32)}, WEIGHTS, WEIGHTS]
    starts = [np.zeros_like(x), np.zeros_like(x), 0.5 * x, np.zeros_like(x)]
    seen: list[tuple[int, list[str]]] = []

    class Noting(SmallNetwork):
        def paths(self, line, weights):  # type: ignore[no-untyped-def]
            seen.append((len(line.baselines), list(weights)))
            return super().paths(line, weights)

    steps = chunked.EVALUATIONS // 2
    found, _ = chunked.paths(Noting(0), x, starts, weights, steps)
    assert seen == [(2, ["logits"]), (1, ["logits"]), (1, ["fc"])]
    alone, _ = chunked.paths(network, x, starts[2:3], weights[2:3], steps)
    np.testing.assert_array_equal(found[2], alone[0])
