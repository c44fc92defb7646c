"""Reading: every kind of damage is refused, in one line that names the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.bundle.manifest import REQUIRED, content_hash, manifest_bytes
from models.bundle.read import read_bundle
from models.errors import BundleError
from wire.bundle import Manifest


def refused(folder: Path, **options: bool) -> BundleError:
    with pytest.raises(BundleError) as refusal:
        read_bundle(folder, **options)
    error = refusal.value
    assert "\n" not in error.line
    assert str(folder.parent) not in error.line
    return error


def sign(folder: Path, **changes: object) -> None:
    """Change manifest fields and sign it anew, as a careless tool would."""
    fields = json.loads((folder / "manifest.json").read_bytes()) | changes
    unsigned = Manifest.model_validate(fields)
    manifest = unsigned.model_copy(update={"hash": content_hash(unsigned)})
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["manifest.json", *REQUIRED]),
    where=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
)
def test_one_changed_byte_anywhere_is_refused(
    bundle_copy: Path, name: str, where: float, flip: int
) -> None:
    file = bundle_copy / name
    good = file.read_bytes()
    at = int(where * len(good))
    file.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
    try:
        error = refused(bundle_copy)
        assert error.field == name
        expected = {"bundle_checksum", "bundle_schema", "bundle_manifest"}
        assert error.code in (expected if name == "manifest.json" else {"bundle_checksum"})
    finally:
        file.write_bytes(good)
    read_bundle(bundle_copy)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_or_cut_file_is_named(bundle_copy: Path, name: str) -> None:
    data = (bundle_copy / name).read_bytes()
    (bundle_copy / name).unlink()
    error = refused(bundle_copy)
    assert (error.code, error.field) == ("bundle_file_missing", name)
    (bundle_copy / name).write_bytes(data[:-1])
    error = refused(bundle_copy)
    assert (error.code, error.field) == ("bundle_checksum", name)


def test_no_folder_and_no_manifest(tmp_path: Path, bundle_copy: Path) -> None:
    assert refused(tmp_path / "nowhere").code == "bundle_missing"
    (bundle_copy / "manifest.json").unlink()
    error = refused(bundle_copy)
    assert error.code == "bundle_missing"
    assert "manifest.json" in error.line


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": 2}'])
def test_a_manifest_that_is_none(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    error = refused(bundle_copy)
    assert (error.code, error.field) == ("bundle_manifest", "manifest.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: sign(b, classes=["a", "b"]),
        lambda b: sign(b, features=[]),
        lambda b: sign(b, taps={"conv1": 5, "fc": 5}),
        lambda b: sign(b, preprocessing={"clip": "wide"}),
        lambda b: sign(b, passes={"unknown": 1}),
        lambda b: sign(b, files={}),
        lambda b: sign(
            b, files={**json.loads((b / "manifest.json").read_bytes())["files"], "../x": "0" * 64}
        ),
    ],
    ids=["classes", "features", "taps", "preprocessing", "passes", "files", "path"],
)
def test_a_signed_manifest_that_contradicts_the_files(
    bundle_copy: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(bundle_copy)
    assert refused(bundle_copy).code == "bundle_manifest"


@pytest.mark.parametrize("name", ["probes.safetensors", "reference.json", "vocabulary.json"])
def test_rubbish_with_the_right_checksum_is_refused_without_a_traceback(
    bundle_copy: Path, name: str
) -> None:
    import hashlib

    (bundle_copy / name).write_bytes(b'{"a": 1}')
    files = json.loads((bundle_copy / "manifest.json").read_bytes())["files"]
    sign(bundle_copy, files={**files, name: hashlib.sha256(b'{"a": 1}').hexdigest()})
    assert refused(bundle_copy).code == "bundle_manifest"


def test_a_file_that_is_not_listed_does_no_harm(bundle_copy: Path, tiny_bundle: Path) -> None:
    (bundle_copy / "model.yaml").write_text("added by a model store")
    assert read_bundle(bundle_copy).hash == read_bundle(tiny_bundle).hash


def test_a_graph_changed_after_reading_is_refused_at_use(bundle_copy: Path) -> None:
    bundle = read_bundle(bundle_copy)
    file = bundle_copy / "gradients.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    assert bundle.classifier
    with pytest.raises(BundleError) as refusal:
        _ = bundle.gradients
    assert (refusal.value.code, refusal.value.field) == ("bundle_checksum", "gradients.onnx")
    read_bundle(bundle_copy, verify=False)  # the graphs are not opened here


def test_reading_is_quick(tiny_bundle: Path) -> None:
    read_bundle(tiny_bundle)
    start = time.perf_counter()
    read_bundle(tiny_bundle)
    assert time.perf_counter() - start < 1.0


_BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name + " is blocked", name=name)

sys.meta_path.insert(0, Block())
import models.bundle.read, models.bundle.write, models.probes.probeset, models.ood
import models.evaluation.classification, models.evaluation.detection
bundle = models.bundle.read.read_bundle({folder!r})
h = bundle.reference.activations
assert bundle.probes.probabilities(h).shape == (len(h), 14)
assert bundle.ood.score(bundle.ood.mean) > 0
if {runtime!r}:
    from models.bundle.runtime import load_model
    model = load_model(bundle)
    assert model.forward(bundle.parity.x, ["scores"])["scores"].shape == (4, 6)
"""

HEAVY = ["torch", "lightning", "monai", "sklearn", "onnx", "onnxscript", "bentoml", "fastapi"]


@pytest.mark.parametrize(
    ("blocked", "runtime"),
    [([*HEAVY, "onnxruntime"], False), (HEAVY, True)],
    ids=["bundle without onnxruntime", "runtime without torch"],
)
def test_serving_needs_no_training_package(
    tiny_bundle: Path, blocked: list[str], runtime: bool
) -> None:
    code = _BLOCKED.format(blocked=blocked, folder=str(tiny_bundle), runtime=runtime)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_moved_bundle_is_the_same_bundle(tmp_path: Path, tiny_bundle: Path) -> None:
    moved = Path(shutil.copytree(tiny_bundle, tmp_path / "elsewhere"))
    assert read_bundle(moved).manifest == read_bundle(str(tiny_bundle)).manifest
