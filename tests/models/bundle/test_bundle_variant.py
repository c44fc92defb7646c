"""Variants: run beside fp32, refused where measured so, tampered with, or not what was measured."""

from __future__ import annotations

import builtins
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from models.bundle.precision import load_variant
from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.bundle.variant import FOLDER, KINDS, RECORD, read_record, records, write_variant
from models.bundle.write import write_bundle
from models.errors import BundleError, InputError
from tests.support.variants import REASON, add, record, relative

QUANTISED = [k.name for k in KINDS.values() if k.quantised]


@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_answers_near_fp32_and_its_gradients_are_fp32(
    bundle_copy: Path, kind: str
) -> None:
    add(bundle_copy, kind)
    base = load_model(bundle_copy)
    model = load_variant(base.bundle, kind, base)  # type: ignore[arg-type]
    x = tiny_onnx.images(5, 3)
    expected = tiny_onnx.expected_outputs(x)
    names = ["fc", "scores", "logits", "conv1"]
    found = model.forward(x, names)
    assert list(found) == names
    for name in names:
        assert relative(found[name], expected[name]) < 0.05, name
    maps = model.forward(x[:1], ["conv1_map", "fc"])
    assert relative(maps["conv1_map"], expected["conv1_map"][:1]) < 0.05
    np.testing.assert_allclose(maps["fc"], found["fc"][:1], rtol=1e-4, atol=1e-4)
    weights = {"logits": np.ones((5, tiny_onnx.C), np.float32)}
    for name, value in base.gradients(x, weights).items():
        np.testing.assert_array_equal(model.gradients(x, weights)[name], value)
    if kind in QUANTISED:
        assert relative(found["logits"], expected["logits"]) > 1e-6  # integers, not the fp32 file
    with pytest.raises(InputError) as fault:
        model.forward(x, ["nothing"])
    assert fault.value.code == "unknown_output"


@pytest.mark.parametrize("kind", ["int8", "openvino-int8"])
def test_many_threads_get_each_their_own_answer(bundle_copy: Path, kind: str) -> None:
    add(bundle_copy, kind)
    base = load_model(bundle_copy)
    model = load_variant(base.bundle, kind, base, streams=2)  # type: ignore[arg-type]
    batches = [tiny_onnx.images(1 + i % 3, i) for i in range(24)]
    alone = [model.forward(x, ["logits"])["logits"] for x in batches]
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(lambda x: model.forward(x, ["logits"])["logits"], batches * 4))
    for number, found in enumerate(several):
        np.testing.assert_array_equal(found, alone[number % len(alone)])


def test_the_bundle_stays_what_it_was(bundle_copy: Path) -> None:
    before = read_bundle(bundle_copy)
    add(bundle_copy, "int8")
    add(bundle_copy, "openvino-bf16", accepted=False)
    after = read_bundle(bundle_copy)
    assert after.hash == before.hash
    assert [(r.kind, r.accepted) for r in records(after)] == [
        ("int8", True),
        ("openvino-bf16", False),
    ]


def test_a_variant_over_its_budget_is_refused_with_the_reason(bundle_copy: Path) -> None:
    add(bundle_copy, "int8", accepted=False)
    base = load_model(bundle_copy)
    assert [f.name for f in (bundle_copy / FOLDER / "int8").iterdir()] == [RECORD]
    with pytest.raises(BundleError) as fault:
        load_variant(base.bundle, "int8", base)  # type: ignore[arg-type]
    assert fault.value.code == "variant_refused"
    assert REASON in fault.value.line
    assert "\n" not in fault.value.line


def test_none_and_unknown_ones_are_told_apart(bundle_copy: Path) -> None:
    bundle = read_bundle(bundle_copy)
    for name, code in (
        ("int8", "variant_missing"),
        ("int4", "variant_unknown"),
        ("../int8", "variant_unknown"),
    ):
        with pytest.raises(BundleError) as fault:
            read_record(bundle, name)
        assert fault.value.code == code


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def _accept(file: Path) -> None:
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"accepted": True, "reasons": []}, indent=2) + "\n")


@pytest.mark.parametrize(
    ("accepted", "file", "damage", "code"),
    [
        (True, "classifier.onnx", _flip, "bundle_checksum"),
        (True, "classifier.onnx", Path.unlink, "bundle_file_missing"),
        (False, RECORD, _accept, "bundle_checksum"),
        (True, RECORD, lambda f: f.write_text(f.read_text() + "\n"), "bundle_checksum"),
        (True, RECORD, lambda f: f.write_text("{}"), "bundle_manifest"),
        (True, RECORD, lambda f: f.write_bytes(b"\xff"), "bundle_manifest"),
    ],
)
def test_a_tampered_variant_is_refused(bundle_copy, accepted, file, damage, code) -> None:
    add(bundle_copy, "int8", accepted=accepted)
    damage(bundle_copy / FOLDER / "int8" / file)
    base = load_model(bundle_copy)
    with pytest.raises(BundleError) as fault:
        load_variant(base.bundle, "int8", base)
    assert fault.value.code == code
    assert "\n" not in fault.value.line


def test_a_variant_of_another_bundle_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    add(bundle_copy, "int8")
    write_bundle(tmp_path / "other", tiny_onnx.parts(1))
    shutil.copytree(bundle_copy / FOLDER, tmp_path / "other" / FOLDER)
    base = load_model(tmp_path / "other")
    with pytest.raises(BundleError) as fault:
        load_variant(base.bundle, "int8", base)  # type: ignore[arg-type]
    assert fault.value.code == "variant_parent"


@pytest.mark.parametrize("kind", ["int8", "openvino-int8"])
def test_numbers_beyond_the_stated_tolerance_are_refused(bundle_copy: Path, kind: str) -> None:
    honest = add(bundle_copy, kind)
    other = tiny_onnx.graph("classifier", seed=3)
    write_variant(bundle_copy, honest, other)  # another network's graph, checksums in order
    base = load_model(bundle_copy)
    with pytest.raises(BundleError) as fault:
        load_variant(base.bundle, kind, base)  # type: ignore[arg-type]
    assert fault.value.code == "bundle_parity"
    write_variant(bundle_copy, record(kind, base.info.bundle), other)  # no tolerance stated
    with pytest.raises(BundleError, match="differs"):
        load_variant(base.bundle, kind, base)  # type: ignore[arg-type]


def test_without_openvino_the_package_is_named(bundle_copy, monkeypatch) -> None:
    add(bundle_copy, "openvino-fp32")
    base, real = load_model(bundle_copy), builtins.__import__

    def without(name: str, *more: object) -> object:
        if name.split(".")[0] == "openvino":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BundleError) as fault:
        load_variant(base.bundle, "openvino-fp32", base)
    assert fault.value.code == "variant_runtime"
    assert "lesionlens[openvino]" in fault.value.line


@pytest.mark.parametrize("kind", QUANTISED)
def test_a_graph_that_is_none_is_named(bundle_copy: Path, kind: str) -> None:
    write_variant(bundle_copy, add(bundle_copy, kind), b"not a graph")
    base = load_model(bundle_copy)
    with pytest.raises(BundleError) as fault:
        load_variant(base.bundle, kind, base)  # type: ignore[arg-type]
    assert fault.value.field == f"{FOLDER}/{kind}/classifier.onnx"
