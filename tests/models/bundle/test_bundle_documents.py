"""metadata.json reads in MONAI tooling; the card says what was measured, and what it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.bundle.card import card
from models.bundle.parts import BundleParts
from models.bundle.read import read_bundle
from models.evaluation.classification import evaluate_classifier
from models.evaluation.detection import evaluate_features

# What the MONAI Bundle Specification asks of a tensor.
TENSOR = {
    "type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data",
    "channel_def",
}  # fmt: skip


def test_metadata_follows_the_specification(tiny_bundle: Path) -> None:
    metadata = json.loads((tiny_bundle / "metadata.json").read_bytes())
    form = metadata["network_data_format"]
    for tensor in (*form["inputs"].values(), *form["outputs"].values()):
        assert set(tensor) >= TENSOR
    assert form["inputs"]["x"]["spatial_shape"] == [8, 8, 8]
    assert form["inputs"]["x"]["channel_def"]["0"] == "arterial"
    assert set(form["outputs"]) == {"scores", "logits", "conv1", "fc"}


def test_monai_itself_reads_the_metadata(tiny_bundle: Path) -> None:
    from monai.bundle import ConfigParser
    from monai.bundle.utils import DEFAULT_METADATA

    parser = ConfigParser()
    parser.read_meta(str(tiny_bundle / "metadata.json"))
    assert parser["_meta_#network_data_format#inputs#x#num_channels"] == 3
    assert set(parser["_meta_"]) >= set(DEFAULT_METADATA)


def test_the_card_states_what_the_model_is(tiny_bundle: Path, tiny_parts: BundleParts) -> None:
    text = read_bundle(tiny_bundle).card
    assert text.count("Research software, not a medical device.") == 1
    assert "**synthetic**" in text
    assert "Not measured." in text
    real = card(replace(tiny_parts, synthetic=False))
    assert "synthetic" not in real


def test_the_card_gives_the_measured_figures(tiny_parts: BundleParts) -> None:
    rng = np.random.default_rng(0)
    classes, features = tiny_parts.vocabulary.class_ids, tiny_parts.vocabulary.feature_ids
    y = rng.integers(0, 6, 60)
    p = rng.dirichlet(np.ones(6), 60) * 0.3 + 0.7 * np.eye(6)[y]
    labels = (rng.random((60, 14)) < 0.4).astype(float)
    chance = rng.random((60, 14))
    evaluation = {
        "classifier": evaluate_classifier(p, y, classes, split="test", draws=50),
        "features": evaluate_features(
            chance, chance > 0.5, labels, features, split="test", draws=50
        ),
    }
    text = card(replace(tiny_parts, evaluation=evaluation))
    accuracy, (low, high) = evaluation["classifier"]["accuracy"], evaluation["classifier"]["ci"]
    assert f"| accuracy | {accuracy:.3f} ({low:.3f} to {high:.3f}) |" in text
    assert all(f"`{name}`" in text for name in (*classes, *features))
    ppv = evaluation["features"]["per_feature"]["washout"]["ppv"]
    assert any("`washout`" in line and f"{ppv:.3f}" in line for line in text.splitlines())
