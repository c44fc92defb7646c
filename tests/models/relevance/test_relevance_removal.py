"""Features taken away from activations and images: what the logits do, recomputed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.relevance.first_order import along, mean_interval, projected_out, to_absent_mean
from models.relevance.removal import centred, class_slopes, from_activations, from_image
from models.voi import centre, normalise
from tests.models.reasons.small_network import SPEC, SmallNetwork, lesion
from tests.models.relevance.relevance_pairs import World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_the_change_is_what_the_network_behind_the_tap_computes(world: World) -> None:
    directions = world.fit(90)
    head = np.random.default_rng(1).normal(size=(4, 5))
    seen = world.lesions(1, stream=4)
    removed = from_activations(directions, seen, head - head.mean(axis=0), [0, 2])
    for f in range(3):
        gone = directions.without(seen["fc"][0], directions.displacement(seen)[0, f])
        change = centred(head @ seen["fc"][0]) - centred(head @ gone)
        np.testing.assert_allclose(removed.change[f], change, atol=1e-9)
    both = directions.without(seen["fc"][0], directions.displacement(seen)[0, [0, 2]].sum(axis=0))
    joint = centred(head @ seen["fc"][0]) - centred(head @ both)
    np.testing.assert_allclose(removed.shared.values.sum(axis=0), joint, atol=1e-9)
    assert removed.order == (0, 2)


def test_clipping_shares_out_what_two_features_would_both_take() -> None:
    """Each alone silences the only unit; together they cannot silence it twice."""
    world = World()
    directions = world.fit(90)
    low = {"conv": np.full((1, 6), 5.0), "fc": np.full((1, 5), 0.05)}
    slopes = np.ones((1, 5))
    removed = from_activations(directions, low, slopes, [0, 1])
    np.testing.assert_allclose(removed.change[:2, 0], 0.25)
    np.testing.assert_allclose(removed.shared.values[:, 0], 0.125)


def test_nothing_found_and_nothing_known(world: World) -> None:
    directions = world.fit(90)
    seen = world.lesions(1, stream=4)
    removed = from_activations(directions, seen, np.ones((2, 5)), [])
    assert removed.order == ()
    np.testing.assert_array_equal(removed.shared.everything, removed.shared.nothing)


def test_slopes_at_the_last_tap_are_the_centred_head() -> None:
    network = SmallNetwork()
    x = centre(normalise(lesion(3), SPEC), SPEC)
    slopes = class_slopes(network, x, "fc")
    np.testing.assert_allclose(slopes, network.head - network.head.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(class_slopes(network, x, "fc", [4]), slopes[[4]], atol=1e-6)


def test_image_removal_is_the_difference_of_two_looks() -> None:
    network, base = SmallNetwork(), normalise(lesion(3), SPEC)
    logits = network.forward(centre(base, SPEC)[None], ["logits"])["logits"][0]
    edits = {"dark": base * 0.5, "same": base}
    found = from_image(
        network, base, lambda b: centre(b, SPEC), logits, ["dark", "none", "same"],
        lambda feature, _: edits.get(feature),
    )  # fmt: skip
    assert list(found) == ["dark", "same"]
    np.testing.assert_allclose(found["same"], 0.0, atol=1e-5)
    gone = network.forward(centre(base * 0.5, SPEC)[None], ["logits"])["logits"][0]
    np.testing.assert_allclose(found["dark"], centred(logits) - centred(gone), atol=1e-5)
    assert abs(found["dark"].sum()) < 1e-5


def test_projection_and_absent_mean_bring_the_score_where_they_say() -> None:
    rng = np.random.default_rng(0)
    h, w, b = rng.normal(size=(7, 6)), rng.normal(size=(3, 6)), rng.normal(size=3)
    away = projected_out(h, w, b)
    left = np.einsum("nfd,fd->nf", h[:, None] - away, w) + b
    np.testing.assert_allclose(left, 0.0, atol=1e-9)
    patterns, absent = w @ np.cov(rng.normal(size=(6, 40))), rng.normal(size=3)
    toward = to_absent_mean(h, w, b, patterns, absent)
    moved = np.einsum("nfd,fd->nf", h[:, None] - toward, w) + b
    np.testing.assert_allclose(moved, np.broadcast_to(absent, moved.shape), atol=1e-9)
    silent = np.zeros_like(w)
    assert not projected_out(h, silent, b).any()
    assert not to_absent_mean(h, silent, b, patterns, absent).any()


def test_first_order_of_many_and_of_one_pass() -> None:
    slopes = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, 1.0]])
    step = np.array([[2.0, 0.0, 4.0]])
    values = along(slopes, step, 2)
    np.testing.assert_allclose(values, [[1.0], [5.0]])
    mean, ci = mean_interval(values[:, 0])
    assert mean == 3.0
    assert ci is not None
    np.testing.assert_allclose(ci, 3.0 + np.array([-1, 1]) * 12.7062 * 2.0, rtol=1e-4)
    assert mean_interval(values[:1, 0]) == (1.0, None)
