"""Writing: deterministic, content-addressed, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from models.bundle import write
from models.bundle.manifest import REQUIRED, content_hash
from models.bundle.parts import BundleParts
from models.bundle.read import read_bundle
from models.bundle.write import write_bundle
from models.errors import BundleError


def test_the_same_parts_give_the_same_bytes(
    tmp_path: Path, tiny_bundle: Path, tiny_parts: BundleParts
) -> None:
    manifest = write_bundle(tmp_path / "again", tiny_parts)
    names = sorted(p.name for p in tiny_bundle.iterdir())
    assert names == sorted(["manifest.json", *REQUIRED])
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tiny_bundle / name).read_bytes()
    assert manifest.hash == content_hash(manifest)
    assert manifest.hash.startswith("b-")
    assert len(manifest.hash) == 22


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1.5},
        {"name": "other"},
        {"synthetic": False},
        {"probe_taps": ["fc", "conv1"]},
        {"training": {"seed": 1}},
        {"classifier": tiny_onnx.graph("classifier", 1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_changes_the_hash(
    tmp_path: Path, tiny_parts: BundleParts, tiny_bundle: Path, change: dict
) -> None:
    manifest = write_bundle(tmp_path / "b", replace(tiny_parts, **change))
    assert manifest.hash != read_bundle(tiny_bundle).hash


def test_what_was_written_is_read(tiny_bundle: Path, tiny_parts: BundleParts) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.vocabulary == tiny_parts.vocabulary
    assert bundle.preprocessing == tiny_parts.preprocessing
    assert bundle.recipe == tiny_parts.recipe
    assert bundle.temperature == tiny_parts.temperature
    assert bundle.classifier == tiny_parts.classifier
    assert bundle.training == tiny_parts.training
    assert bundle.reference.lesion_ids == tiny_parts.reference.lesion_ids
    assert bundle.reference.features == tiny_parts.reference.features
    np.testing.assert_array_equal(bundle.reference.activations, tiny_parts.reference.activations)
    h = tiny_parts.reference.activations
    np.testing.assert_array_equal(
        bundle.probes.probabilities(h), tiny_parts.probes.probabilities(h)
    )
    for row in tiny_parts.ood.mean * np.linspace(0, 2, 5)[:, None]:
        assert bundle.ood.score(row) == tiny_parts.ood.score(row)
    sample = bundle.parity.to_tensors()
    for name, value in tiny_parts.parity.to_tensors().items():
        np.testing.assert_array_equal(sample[name], value)


def test_an_earlier_bundle_is_replaced_and_nothing_else(
    bundle_copy: Path, tiny_parts: BundleParts
) -> None:
    manifest = write_bundle(bundle_copy, replace(tiny_parts, name="later"))
    assert read_bundle(bundle_copy).manifest == manifest
    assert [p.name for p in bundle_copy.parent.iterdir()] == [bundle_copy.name]

    other = bundle_copy.parent / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(BundleError) as refusal:
        write_bundle(other, tiny_parts)
    assert refusal.value.code == "bundle_target"
    assert (other / "cat.jpg").read_bytes() == b"cat"


def test_a_failure_while_writing_leaves_the_earlier_bundle(
    bundle_copy: Path, tiny_parts: BundleParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_bundle(bundle_copy).hash

    def full_disk(self: Path, data: bytes) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(write.Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_bundle(bundle_copy, replace(tiny_parts, name="later"))
    monkeypatch.undo()
    assert read_bundle(bundle_copy).hash == before
    assert [p.name for p in bundle_copy.parent.iterdir()] == [bundle_copy.name]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"probe_taps": ["conv9"]}, "probe_taps"),
        ({"probe_taps": ["fc"]}, "probes.length"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    tmp_path: Path, tiny_parts: BundleParts, change: dict, field: str
) -> None:
    with pytest.raises(BundleError) as refusal:
        write_bundle(tmp_path / "b", replace(tiny_parts, **change))
    assert refusal.value.code == "bundle_parts"
    assert refusal.value.field == field
    assert not (tmp_path / "b").exists()
