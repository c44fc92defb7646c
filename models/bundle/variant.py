"""Variants of a bundle's classifier on disk: written, read, or refused with one clear line.

    bundle/variants/<kind>/variant.json (+ classifier.onnx)     record: wire.variant.VariantRecord

A variant is a sidecar: it names its bundle's hash and has a hash and checksums of its own, and the
bundle's hash does not change (docs/adr/0010). Codes of a refusal (BundleError): variant_unknown (no
such kind), variant_missing (this bundle has none), variant_refused (measured, and over its budget),
variant_parent (made for another bundle), bundle_checksum, bundle_manifest, bundle_file_missing;
models.bundle.precision adds variant_runtime and bundle_parity.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from models.bundle.manifest import CLASSIFIER, first_fault, manifest_bytes
from models.bundle.read import Bundle
from models.errors import BundleError
from wire.variant import VariantRecord

FP32 = "fp32"  # the bundle itself, on onnxruntime
FOLDER = "variants"
RECORD = "variant.json"


@dataclass(frozen=True)
class Kind:
    """A way to run the classifier. hint: the precision that OpenVINO computes what is not quantised
    in. quantised: has a graph of its own."""

    name: str
    runtime: Literal["onnxruntime", "openvino"]
    quantised: bool
    hint: str
    says: str


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("int8", "onnxruntime", True, "f32", "8-bit integers on onnxruntime"),
        Kind("openvino-fp32", "openvino", False, "f32", "the same file on OpenVINO"),
        Kind("openvino-bf16", "openvino", False, "bf16", "the same file on OpenVINO in bfloat16"),
        Kind("openvino-int8", "openvino", True, "f32", "8-bit integers on OpenVINO"),
    )
}
PRECISIONS = (FP32, *KINDS)


@dataclass(frozen=True)
class Variant:
    """A checked variant. classifier: its graph, None where it runs the bundle's own."""

    kind: Kind
    record: VariantRecord
    classifier: bytes | None


def kind_of(name: str) -> Kind:
    """Raises BundleError variant_unknown."""
    if name not in KINDS:
        raise BundleError(
            "no such precision",
            code="variant_unknown",
            field="precision",
            found=name[:40],
            expected=", ".join(PRECISIONS),
        )
    return KINDS[name]


def variant_hash(record: VariantRecord) -> str:
    """'v-' and 20 hex digits over every field but the hash; the fields hold the files' sha256."""
    fields = record.model_dump(mode="json", exclude={"hash"})
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "v-" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:20]


def write_variant(
    bundle: Path, record: VariantRecord, classifier: bytes | None = None
) -> VariantRecord:
    """Write variants/<kind>/ of the bundle's folder, whole or not at all, in place of an earlier.

    record: its hash and files are filled in here. classifier: left out where the variant was
    refused or has no graph of its own.
    """
    files = {CLASSIFIER: classifier} if classifier is not None and record.accepted else {}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    unsigned = record.model_copy(update={"hash": "", "files": sums})
    signed = unsigned.model_copy(update={"hash": variant_hash(unsigned)})
    files[RECORD] = manifest_bytes(signed)
    parent = bundle / FOLDER
    parent.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{record.kind}-", dir=parent))
    try:
        fresh, there = work / "new", parent / record.kind
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        if there.exists():
            there.rename(work / "old")
        fresh.rename(there)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return signed


def read_record(bundle: Bundle, name: str) -> VariantRecord:
    """The record of a variant, accepted or not, checked. Raises BundleError."""
    kind = kind_of(name)
    file = bundle.path / FOLDER / kind.name / RECORD
    where = f"{FOLDER}/{kind.name}/{RECORD}"
    if not file.is_file():
        raise BundleError(
            f"the bundle has no variant {kind.name!r}",
            code="variant_missing",
            field="precision",
            found=bundle.hash,
            expected=f"'lesionlens bundle variant --kind {kind.name}' to make and measure it",
        )
    raw = file.read_bytes()
    try:
        record = VariantRecord.model_validate_json(raw)
    except ValidationError as error:
        raise BundleError(first_fault(error), code="bundle_manifest", field=where) from None
    if record.hash != variant_hash(record) or manifest_bytes(record) != raw:
        raise BundleError(
            "the content differs from what its hash says", code="bundle_checksum", field=where
        )
    if (record.parent, record.kind) != (bundle.hash, kind.name):
        raise BundleError(
            "the variant was made for another bundle or kind",
            code="variant_parent",
            field=where,
            found=f"{record.kind} of {record.parent}",
            expected=f"{kind.name} of {bundle.hash}",
        )
    return record


def read_variant(bundle: Bundle, name: str) -> Variant:
    """A variant that may serve: accepted, its bytes as they were measured. Raises BundleError."""
    record, kind = read_record(bundle, name), kind_of(name)
    if not record.accepted:
        raise BundleError(
            f"the variant {kind.name!r} was refused when it was measured",
            code="variant_refused",
            field="precision",
            found="; ".join(record.reasons),
            expected="a precision inside its budget, such as fp32",
        )
    if not kind.quantised:
        return Variant(kind, record, None)
    where = f"{FOLDER}/{kind.name}/{CLASSIFIER}"
    try:
        data = (bundle.path / where).read_bytes()
    except OSError:
        raise BundleError(
            "the file cannot be read", code="bundle_file_missing", field=where
        ) from None
    if hashlib.sha256(data).hexdigest() != record.files.get(CLASSIFIER):
        raise BundleError(
            "the content differs from its checksum", code="bundle_checksum", field=where
        )
    return Variant(kind, record, data)


def records(bundle: Bundle) -> list[VariantRecord]:
    """Every variant that was measured, accepted or not, in the order of KINDS. BundleError."""
    there = [name for name in KINDS if (bundle.path / FOLDER / name / RECORD).is_file()]
    return [read_record(bundle, name) for name in there]
