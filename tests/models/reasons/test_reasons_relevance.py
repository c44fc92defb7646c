"""The relevance of an explanation: its forms, its default, and when it has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle.read import Bundle
from models.imaging.edits import Edits
from models.reasons.relevance import View, Weighed, weigh
from models.relevance.directions import Directions
from models.relevance.removal import centred
from models.voi import centre, normalise
from tests.models.reasons.small_network import SPEC, SmallNetwork, bundle, lesion

FOUND = ["enhancing_capsule", "hypoenhancing_core", "thin_walled"]


@pytest.fixture(scope="module")
def network() -> SmallNetwork:
    return SmallNetwork()


@pytest.fixture(scope="module")
def plain(network: SmallNetwork) -> Bundle:
    return bundle(network)


def directions(network: SmallNetwork, known: list[str], made: Bundle, origin: str) -> Directions:
    """Pairs of lesions, the second of which is darker; twenty-five of each known feature."""
    features = made.probes.features
    x = [centre(normalise(lesion(i), SPEC), SPEC) for i in range(25)]
    both = [network.forward(np.stack(v), ["conv1", "fc"]) for v in (x, [v * 0.6 for v in x])]
    which = np.repeat([features.index(f) for f in known], 25)
    rows = np.tile(np.arange(25), len(known))
    return Directions.fit(
        features, both[0], {t: v[rows] for t, v in both[0].items()}, {"fc": both[1]["fc"][rows]},
        which, origin=origin,
    )  # fmt: skip


def look(network: SmallNetwork, made: Bundle, found: list[str]) -> tuple[View, Weighed]:
    base = normalise(lesion(40), SPEC)
    x = centre(base, SPEC)[None]
    outputs = network.forward(x, ["logits", "conv1", "fc"])
    winner = int(outputs["logits"][0].argmax())
    weights = np.eye(6)[[winner]] - 1 / 6
    tiled = np.repeat(weights, 3, axis=0).astype(np.float32)
    slopes = network.gradients(np.repeat(x, 3, axis=0), {"logits": tiled})
    joined = made.evidence.tap_vector(slopes)
    size = (24.0, 22.0, 20.0)
    edits = Edits(base, size, SPEC, tuple(made.manifest.phases))
    view = View(base, size, outputs, joined, winner, edits)
    return view, weigh(view, found, made, network)


def test_renderings_make_removal_in_activations_the_default(
    network: SmallNetwork, plain: Bundle
) -> None:
    made = replace(plain, directions=directions(network, FOUND[:2], plain, "rendering"))
    view, weighed = look(network, made, FOUND)
    capsule = weighed.features["enhancing_capsule"]
    assert capsule.form == "activation_removal"
    assert list(capsule.forms) == ["first_order", "activation_removal", "image_removal"]
    assert capsule.value == capsule.by_class[made.manifest.classes[view.class_index]]
    assert abs(sum(capsule.by_class.values())) < 1e-2 * max(map(abs, capsule.by_class.values()))
    assert capsule.ci is not None
    assert capsule.ci[0] < capsule.value < capsule.ci[1]
    # No pairs of this one: the next best form, and no share.
    assert weighed.features["thin_walled"].form == "image_removal"
    assert weighed.features["thin_walled"].shapley is None
    assert weighed.completeness is not None
    shares = [weighed.features[f].shapley for f in FOUND[:2]]
    assert sum(s for s in shares if s is not None) == pytest.approx(
        weighed.completeness.change, rel=1e-3
    )


def test_image_edits_make_removal_in_the_image_the_default(
    network: SmallNetwork, plain: Bundle
) -> None:
    made = replace(plain, directions=directions(network, FOUND, plain, "edit"))
    _, weighed = look(network, made, FOUND)
    assert {weighed.features[f].form for f in FOUND} == {"image_removal"}
    assert all("activation_removal" in weighed.features[f].forms for f in FOUND)


def test_what_is_not_found_is_weighed_by_the_first_order_alone(
    network: SmallNetwork, plain: Bundle
) -> None:
    made = replace(plain, directions=directions(network, FOUND, plain, "rendering"))
    _, weighed = look(network, made, [])
    assert weighed.completeness is None
    assert len(weighed.features) == len(made.probes.features)
    for relevance in weighed.features.values():
        assert list(relevance.forms) == ["first_order"]
        assert relevance.by_class == {}
        assert relevance.shapley is None


def test_a_bundle_without_directions_still_edits_the_image(
    network: SmallNetwork, plain: Bundle
) -> None:
    view, weighed = look(network, plain, FOUND)
    assert weighed.completeness is None
    core = weighed.features["hypoenhancing_core"]
    assert core.form == "image_removal"
    assert core.ci is None
    assert plain.directions is None
    assert np.isfinite(centred(view.plain["logits"])).all()


def test_an_edit_that_leaves_the_image_as_it_is_is_no_answer(
    network: SmallNetwork, plain: Bundle
) -> None:
    """The lesion brightens nowhere and washes out nowhere: there is nothing to take away."""
    made = replace(plain, directions=directions(network, ["washout"], plain, "edit"))
    _, weighed = look(network, made, ["washout"])
    assert list(weighed.features["washout"].forms) == ["first_order", "activation_removal"]
    assert weighed.features["washout"].form == "activation_removal"


def test_same_question_same_answer(network: SmallNetwork, plain: Bundle) -> None:
    made = replace(plain, directions=directions(network, FOUND, plain, "rendering"))
    assert look(network, made, FOUND)[1] == look(network, made, list(reversed(FOUND)))[1]
