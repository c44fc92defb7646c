"""Bundles of earlier schemas, written by the releases that had them, are read, served and guarded.

tests/models/bundle/schema1 and schema2 were written by `write_bundle` of the last commit with that
schema, from the parts of tiny_onnx as they were then; nothing in them was changed since.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle.manifest import MANIFEST, REQUIRED, content_hash, manifest_bytes
from models.bundle.migrate import OLDEST_SCHEMA, Manifest1, Manifest2, check_manifest
from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.errors import BundleError
from wire.bundle import BUNDLE_SCHEMA, Manifest

SCHEMA1 = Path(__file__).parent / "schema1"
SCHEMA2 = Path(__file__).parent / "schema2"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SCHEMA1, tmp_path / "copy"))


def test_it_is_lifted_and_keeps_its_address_and_its_numbers() -> None:
    model = load_model(SCHEMA1)  # checksums and parity of the time of writing
    manifest = model.bundle.manifest
    written = json.loads((SCHEMA1 / MANIFEST).read_bytes())
    assert (written["schema_version"], manifest.schema_version) == (1, BUNDLE_SCHEMA)
    assert manifest.hash == written["hash"]
    assert (manifest.optional_phases, manifest.modality, manifest.origin) == ([], "MR", "trained")
    for name, value in written.items():
        if name != "schema_version":
            assert getattr(manifest, name) == value, name
    x = tiny_onnx.images(2, 8)
    found = model.forward(x, ["scores"])["scores"]
    np.testing.assert_allclose(found, tiny_onnx.expected_outputs(x)["scores"], atol=1e-5)


def test_schema_2_is_lifted_and_explains_what_it_can() -> None:
    bundle = load_model(SCHEMA2).bundle
    written = json.loads((SCHEMA2 / MANIFEST).read_bytes())
    assert (written["schema_version"], bundle.manifest.schema_version) == (2, BUNDLE_SCHEMA)
    for name, value in written.items():
        if name != "schema_version":
            assert getattr(bundle.manifest, name) == value, name
    assert bundle.manifest.optional_phases == ["delayed"]
    assert bundle.manifest.measurements == []
    assert (bundle.directions, bundle.judges, bundle.trust) == (None, None, ())
    h = bundle.reference.activations
    assert bundle.probes.probabilities(h).shape == (len(h), len(bundle.manifest.features))
    assert bundle.probes.quality[0].ppv is None  # was not measured then


def test_its_parts_work_as_they_did() -> None:
    bundle = read_bundle(SCHEMA1)
    h = bundle.reference.activations
    assert bundle.preprocessing.intensity == "parenchyma"
    assert bundle.probes.probabilities(h).shape == (len(h), len(bundle.manifest.features))
    # Mahalanobis to the nearest class centre, as the formula of that release reads.
    z = (h - bundle.ood.mean) / bundle.ood.scale
    gaps = bundle.ood.references[None] - (z @ bundle.ood.whitening.T)[:, None]
    expected = np.sqrt((gaps.astype(np.float64) ** 2).mean(axis=2).min(axis=1))
    np.testing.assert_allclose(bundle.ood.scores(h), expected, rtol=1e-4, atol=1e-6)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from([MANIFEST, *REQUIRED]),
    where=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
)
def test_one_changed_byte_anywhere_is_refused(
    copy: Path, name: str, where: float, flip: int
) -> None:
    file = copy / name
    good = file.read_bytes()
    at = int(where * len(good))
    file.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
    try:
        with pytest.raises(BundleError) as refusal:
            read_bundle(copy)
        assert refusal.value.field == name
    finally:
        file.write_bytes(good)


def test_a_schema_cannot_be_claimed(copy: Path, tiny_bundle: Path) -> None:
    """The rules of the version that a manifest names are applied in full, in both directions."""
    fields = json.loads((copy / MANIFEST).read_bytes())
    today = json.loads((tiny_bundle / MANIFEST).read_bytes())
    for claimed in (fields | {"schema_version": BUNDLE_SCHEMA}, today | {"schema_version": 1}):
        raw = (json.dumps(claimed, indent=2, ensure_ascii=False) + "\n").encode()
        with pytest.raises(BundleError) as refusal:
            check_manifest(claimed, raw)
        assert refusal.value.code in ("bundle_checksum", "bundle_manifest")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (BUNDLE_SCHEMA + 1, "needs a newer lesionlens"),
        (99, "needs a newer lesionlens"),
        (OLDEST_SCHEMA - 1, "older than any that can be read"),
    ],
)
def test_other_versions_are_refused_clearly(copy: Path, version: int, words: str) -> None:
    file = copy / MANIFEST
    file.write_bytes(
        json.dumps(json.loads(file.read_bytes()) | {"schema_version": version}).encode()
    )
    with pytest.raises(BundleError) as refusal:
        read_bundle(copy)
    assert refusal.value.code == "bundle_schema"
    assert words in refusal.value.line
    assert f"found schema version {version}; expected version 1 to {BUNDLE_SCHEMA}" in (
        refusal.value.line
    )


@pytest.mark.parametrize("version", [True, "2", None, 1.0, [2]])
def test_a_version_that_is_no_number_is_refused(copy: Path, version: object) -> None:
    file = copy / MANIFEST
    file.write_bytes(
        json.dumps(json.loads(file.read_bytes()) | {"schema_version": version}).encode()
    )
    with pytest.raises(BundleError) as refusal:
        read_bundle(copy)
    assert refusal.value.field == MANIFEST


@pytest.mark.parametrize(("folder", "kind"), [(SCHEMA1, Manifest1), (SCHEMA2, Manifest2)])
def test_every_schema_is_addressed_by_the_same_rule(
    folder: Path, kind: type[Manifest1] | type[Manifest2]
) -> None:
    written = kind.model_validate(json.loads((folder / MANIFEST).read_bytes()))
    assert content_hash(written) == written.hash
    assert manifest_bytes(written) == (folder / MANIFEST).read_bytes()
    lifted = check_manifest(json.loads(manifest_bytes(written)), manifest_bytes(written))
    assert isinstance(lifted, Manifest)
    assert content_hash(lifted) != lifted.hash  # the address is that of the bytes on disk
