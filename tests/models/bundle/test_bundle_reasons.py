"""What a bundle holds to give reasons with: pairs, judges, trust cards, image measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from models.bundle.judges import Judges, ReviewQuality
from models.bundle.manifest import CONSISTENCY, RELEVANCE, TRUST
from models.bundle.parts import BundleParts
from models.bundle.read import read_bundle
from models.bundle.write import write_bundle
from models.consistency.features import FeatureModel
from models.consistency.image import ImageExpert
from models.consistency.review import Opinions, ReviewModel
from models.errors import BundleError, InputError
from models.imaging.measurements import measure, names
from models.probes.probeset import ProbeSet
from models.relevance.directions import Directions
from wire.explanation import TrustCard

MEASURED = list(names()[:3])
CARD = TrustCard(
    method="integrated_gradients", kind="feature", n=12, split="validation", pointing=0.8,
    passed=False, failed=["repeatability"],
)  # fmt: skip


@pytest.fixture(scope="module")
def full() -> BundleParts:
    """The parts of tiny_onnx and everything else that a bundle may hold."""
    parts = tiny_onnx.parts()
    rng = np.random.default_rng(0)
    features, classes = parts.vocabulary.feature_ids, parts.vocabulary.class_ids
    h = parts.reference.activations
    taps = {"conv1": h[:, : tiny_onnx.CONV], "fc": h[:, tiny_onnx.CONV :]}
    rows = np.arange(28) % len(h)
    directions = Directions.fit(
        features,
        taps,
        {t: v[rows] for t, v in taps.items()},
        {"fc": taps["fc"][rows] * 0.5},
        np.arange(28) % len(features),
        origin="edit",
    )
    labels = (rng.random((40, len(features))) > 0.5).astype(float)
    truth = np.arange(40) % len(classes)
    shares = rng.dirichlet(np.ones(len(classes)), 40)
    said = {"network": shares, "features": rng.dirichlet(np.ones(len(classes)), 40)}
    judges = Judges(
        FeatureModel.fit(labels, truth, classes, features),
        ImageExpert.fit(rng.normal(size=(40, 3)), truth, classes, MEASURED),
        ReviewModel.fit({"reader": Opinions(said, rng.random(40))}, truth),
        {"reader": ReviewQuality(None, None, 40, "validation")},
    )
    joined = np.concatenate([h, rng.normal(size=(len(h), 3)).astype(np.float32)], axis=1)
    return replace(
        parts,
        measurements=MEASURED,
        probes=ProbeSet.fit(joined[:20], labels[:20], joined, features, 0),
        directions=directions,
        judges=judges,
        trust=[CARD],
    )


def test_all_of_it_comes_back_exactly(full: BundleParts, tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "b", full)
    bundle = read_bundle(tmp_path / "b", verify=False)
    assert {*RELEVANCE, *CONSISTENCY, TRUST} <= set(manifest.files)
    assert (manifest.measurements, bundle.trust) == (MEASURED, (CARD,))
    assert write_bundle(tmp_path / "again", full).hash == manifest.hash
    for there, here in ((bundle.directions, full.directions), (bundle.judges, full.judges)):
        assert there is not None
        assert here is not None
        (tensors, meta), (own, own_meta) = there.to_parts(), here.to_parts()
        assert meta == own_meta
        assert set(tensors) == set(own)
        assert all(np.array_equal(tensors[name], own[name]) for name in own)


def test_the_card_tells_of_pairs_review_and_trust(full: BundleParts, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", full)
    card = read_bundle(tmp_path / "b").card
    assert "28 training lesions with and without it, made by editing" in card
    assert "| reader | undefined | 40 (validation) |" in card
    assert "failed: repeatability" in card
    write_bundle(tmp_path / "plain", tiny_onnx.parts())
    plain = read_bundle(tmp_path / "plain").card
    assert "There is no review flag." in plain
    assert "to first order only" in plain


def test_probes_read_the_image_after_the_taps(full: BundleParts, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", full)
    bundle = read_bundle(tmp_path / "b")
    base = np.random.default_rng(1).normal(size=(3, 16, 16, 16)).astype(np.float32)
    measured = bundle.measure(base, (20.0, 20.0, 20.0))
    every = dict(zip(names(), measure(base, [20.0] * 3, tiny_onnx.SPEC), strict=True))
    assert measured.tolist() == [float(every[name]) for name in MEASURED]
    values = tiny_onnx.expected_outputs(tiny_onnx.images(2, 0))
    vector = bundle.probe_vector(values, measured)
    assert vector.shape == (2, 9 + 3)
    np.testing.assert_array_equal(vector[:, 9:], np.tile(measured.astype(np.float32), (2, 1)))
    with pytest.raises(InputError):
        bundle.probe_vector(values)


@pytest.mark.parametrize("part", ["directions", "judges", "probes"])
def test_parts_of_another_model_are_refused(full: BundleParts, tmp_path: Path, part: str) -> None:
    assert full.directions is not None
    assert full.judges is not None
    known = full.judges.features
    wrong = {
        "directions": replace(full.directions, features=("a",) * 14),
        "judges": replace(full.judges, features=replace(known, classes=known.classes[::-1])),
        "probes": tiny_onnx.parts().probes,
    }
    with pytest.raises(BundleError) as refused:
        write_bundle(tmp_path / "b", replace(full, **{part: wrong[part]}))
    assert refused.value.code == "bundle_parts"
    assert (refused.value.field or "").startswith(part)


@pytest.mark.parametrize("name", [*RELEVANCE, *CONSISTENCY, TRUST])
def test_a_changed_byte_is_refused(full: BundleParts, tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path / "b", full)
    file = tmp_path / "b" / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(BundleError) as refused:
        read_bundle(tmp_path / "b")
    assert (refused.value.code, refused.value.field) == ("bundle_checksum", name)
