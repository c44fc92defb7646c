"""Cases that leave nearly nothing to go on still get a defined answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle.judges import Judges
from models.bundle.parts import Reference
from models.bundle.read import Bundle
from models.consistency.features import FeatureModel
from models.consistency.review import Opinions, ReviewModel
from models.ood import OutOfDistributionScore, readout
from models.probes.probeset import ProbeSet
from models.reasons.explain import document_bytes, explain
from models.relevance.directions import Directions
from models.voi import tensor
from tests.models.reasons.small_network import CONV, FC, SPEC, SmallNetwork, lesion
from wire.api import ExplanationParameters
from wire.explanation import Explanation

FEW = ExplanationParameters(passes=3, map_steps=2, reader_features={"washout": "present"})


def poor(network: SmallNetwork, like: Bundle) -> Bundle:
    """Two training lesions, the same one twice, one of them labelled; one class; one pair."""
    x = np.stack([tensor(lesion(1), SPEC)] * 2)
    values = network.forward(x, ["logits", "conv1", "fc"])
    h = np.concatenate([values["conv1"], values["fc"]], axis=1)
    names, classes = like.manifest.features, like.manifest.classes
    labels = np.full((1, len(names)), np.nan)
    labels[0, :2] = (1, 0)
    model = FeatureModel.fit(labels, np.zeros(1, np.int64), classes, names)
    said = {"network": like.probabilities(values["logits"])}
    taps = {t: values[t] for t in ("conv1", "fc")}
    score = OutOfDistributionScore.fit(
        ["conv1", "fc"], *[readout(values, x, ["conv1", "fc"])] * 2, 0.99
    )
    return replace(
        like,
        probes=ProbeSet.fit(h[:1], labels, h, names, 0),
        reference=Reference(h, ["a", "b"], [classes[0]] * 2, [["washout"], []]),
        ood=score,
        directions=Directions.fit(
            names, taps, {t: v[:1] for t, v in taps.items()}, {"fc": taps["fc"][:1]},
            np.array([1]), origin="edit",
        ),
        judges=Judges(
            model, None, ReviewModel.fit(
                {s: Opinions(said, np.ones(2)) for s in ("probes", "reader")},
                np.zeros(2, np.int64),
            ),
        ),
    )  # fmt: skip


def dead() -> SmallNetwork:
    """Not one unit ever fires."""
    network = SmallNetwork(bias=0.0)
    network.kernel = np.zeros((CONV, 3))
    network.dense = np.zeros((FC, CONV))
    return network


@pytest.mark.parametrize("network", [SmallNetwork(), dead()], ids=["alive", "dead"])
def test_hardly_any_lesion_and_taps_that_say_nothing(
    network: SmallNetwork, small_bundle: Bundle
) -> None:
    bundle = poor(network, small_bundle)
    document = explain(lesion(60), bundle, network, FEW).document
    data = document_bytes(document)  # refuses NaN and infinity
    assert Explanation.model_validate_json(data) == document
    assert data == document_bytes(explain(lesion(60), bundle, network, FEW).document)
    assert len(document.features) == 14
    assert document.review is not None
    assert 0 <= document.review.score <= 1
    assert [c.source for c in document.consistency] == ["reader", "probes"]
    assert {s.lesion_id for s in document.similar} == {"a", "b"}


def test_a_dead_network_finds_nothing_and_shows_nothing(small_bundle: Bundle) -> None:
    network = dead()
    result = explain(lesion(60), poor(network, small_bundle), network, FEW)
    assert not any(f.found for f in result.document.features)
    assert all(f.relevance.value == 0 for f in result.document.features)
    assert not any(m.any() for m in result.maps.values())
    assert result.document.completeness is None
