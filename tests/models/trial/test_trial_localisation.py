"""Maps against masks: choice of lesions, rows, the report's dict, the card."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from models.attribution.goal import Settings
from models.evaluation.resampling import multiplicities
from models.trial.localisation import map_figures, trust_card
from models.trial.mapped import LESION, MappedLesions, Network, chosen, measure
from models.vocabulary import liver_mri
from models.voi import normalise
from tests.models.reasons.small_network import SPEC, SmallNetwork, lesion, shared

FEATURES = liver_mri().feature_ids
SETTINGS = Settings(steps=4, window=6, stride=6)
COUNT = 10


def lesions(masks: bool = True) -> MappedLesions:
    """Balls in noise; each has two features of which one covers the ball and one its middle."""
    k = SPEC.tensor_voxels
    away = np.sqrt(sum(g**2 for g in np.meshgrid(*[np.arange(k) - (k - 1) / 2] * 3)))
    ball, core = away < 4, away < 1.5
    rng = np.random.default_rng(3)
    labels = np.zeros((COUNT, len(FEATURES)))
    labels[:, 0] = 1
    labels[::2, FEATURES.index("central_scar")] = 1
    truth = {FEATURES[0]: ball, "central_scar": core, LESION: ball}
    return MappedLesions(
        ids=tuple(f"L{i:02d}" for i in rng.permutation(COUNT)),
        bases=np.stack([normalise(lesion(i), SPEC) for i in range(COUNT)]),
        sizes_mm=np.array([lesion(i).size_mm for i in range(COUNT)]),
        classes=np.arange(COUNT) % 3,
        labels=labels,
        masks=tuple(dict(truth) for _ in range(COUNT)) if masks else (),
    )


def own() -> Network:
    network, bundle = shared()
    return Network(bundle, network)


def test_the_choice_follows_the_ids_and_not_their_order() -> None:
    held = lesions()
    turned = np.arange(COUNT)[::-1]
    other = MappedLesions(
        tuple(held.ids[i] for i in turned), held.bases[turned], held.sizes_mm[turned],
        held.classes[turned], held.labels[turned],
    )  # fmt: skip
    for kind in ("feature", "class"):
        first = [(held.ids[i], t) for i, t in chosen(held, kind, 3, 0)]  # type: ignore[arg-type]
        assert first == [(other.ids[i], t) for i, t in chosen(other, kind, 3, 0)]  # type: ignore[arg-type]
    assert sum(0 in t for _, t in chosen(held, "feature", 3, 0)) == 3


def test_figures_of_a_feature_map_stand_in_its_row() -> None:
    held = lesions()
    picks = chosen(held, "feature", 4, 0)
    rows = measure(
        held, picks, "feature", "integrated_gradients", own(), SETTINGS,
        random=SmallNetwork(9), again=own(), twins=2,
    )  # fmt: skip
    assert len(rows.lesion) == 8
    for name in ("pointing", "auprc", "centre_auprc", "edge_pointing", "rises"):
        assert np.isfinite(rows.array(name)).all()
    again = rows.array("reproducibility")
    known = again[np.isfinite(again)]
    # The same network again draws the same maps; a map of zeros has no likeness.
    assert len(known) <= 4
    assert known == pytest.approx(np.ones(len(known)))
    core = np.array(rows.target) == FEATURES.index("central_scar")
    assert rows.array("centre_auprc")[core].min() == 1


def test_without_masks_only_the_network_is_compared_with_itself() -> None:
    held = lesions(masks=False)
    picks = chosen(held, "class", 2, 0)
    rows = measure(held, picks, "class", "gradient_x_input", own(), SETTINGS)
    assert np.isnan(rows.array("pointing")).all()
    card = trust_card(rows, multiplicities(COUNT, draws=20), "validation")
    assert card.pointing is None
    assert card.n == 6
    assert card.repeatability is not None


def test_the_report_is_json_and_the_same_twice() -> None:
    held = lesions()

    def once() -> str:
        found = map_figures(
            held, own(), SmallNetwork(9), None, each=2, twins=1, settings=SETTINGS, draws=20,
            methods=("integrated_gradients", "grad_cam", "occlusion"),
        )  # fmt: skip
        return json.dumps(found, allow_nan=False)

    found = json.loads(once())
    assert once() == json.dumps(found)
    assert found["default"]["method"] == "integrated_gradients"
    assert found["default"]["auprc"] == found["integrated_gradients"]["auprc"]
    assert {"class_grad_cam", "integrated_gradients_parenchyma", "occlusion"} <= set(found)
    assert set(found["controls"]) == {"centre", "edge", "edit"}
    assert 0 <= found["beats_controls"] <= 2
    assert found["focal"] == ["central_scar"]
    low, high = found["default"]["pointing_ci"]
    assert low <= found["default"]["pointing"] <= high
    assert found["grad_cam"]["trust"]["completeness_error"] is None


def test_a_cohort_without_the_features_has_an_empty_report() -> None:
    held = lesions()
    none = replace(held, labels=np.full_like(held.labels, np.nan))
    found = map_figures(
        none, own(), SmallNetwork(9), None, each=2, settings=SETTINGS, draws=5,
        methods=("integrated_gradients",),
    )  # fmt: skip
    assert found["default"]["n"] == 0
    assert found["beats_controls"] == 0
    assert not found["default"]["trust"]["passed"]
