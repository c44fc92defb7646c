"""Manifests of earlier schemas, checked by their own rules and then lifted to the present one.

    bytes -> version -> fields and canonical bytes of that version, own hash -> Manifest of today

A bundle is lifted in memory only: its files stay as they are, so it keeps its content address, its
checksums and its place in the history of promotions. A version newer than this code is refused (its
fields may change what the numbers mean), and so is one older than any that this code knows.

    1   0.1: no optional phases, modality or origin
    2   those three
    3   probes may read image measurements; directions, feature model, review, trust cards
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.bundle.manifest import MANIFEST, content_hash, first_fault, manifest_bytes
from models.errors import BundleError
from wire.bundle import BUNDLE_SCHEMA, Manifest

OLDEST_SCHEMA = 1


class Manifest1(BaseModel):
    """The manifest as schema 1 had it, in its order of fields. Frozen for good."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    schema_version: Literal[1]
    name: str
    hash: str
    architecture: str
    trained_on: str
    synthetic: bool
    classes: list[str]
    phases: list[str]
    features: list[str]
    taps: dict[str, int]
    probe_taps: list[str]
    preprocessing: dict[str, float | int | str]
    passes: dict[str, float | int | bool]
    temperature: float = Field(gt=0)
    files: dict[str, str]


class Manifest2(BaseModel):
    """The manifest as schema 2 had it, in its order of fields. Frozen for good."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    schema_version: Literal[2]
    name: str
    hash: str
    architecture: str
    trained_on: str
    synthetic: bool
    classes: list[str]
    phases: list[str]
    optional_phases: list[str] = Field(default_factory=list)
    modality: Literal["MR", "CT"] = "MR"
    origin: Literal["trained", "adopted"] = "trained"
    features: list[str]
    taps: dict[str, int]
    probe_taps: list[str]
    preprocessing: dict[str, float | int | str]
    passes: dict[str, float | int | bool]
    temperature: float = Field(gt=0)
    files: dict[str, str]


_WRITTEN: dict[Any, type[Manifest] | type[Manifest1] | type[Manifest2]] = {
    1: Manifest1,
    2: Manifest2,
}


def check_manifest(fields: dict[str, Any], raw: bytes) -> Manifest:
    """The manifest of today for the JSON `fields` that were parsed from the bytes `raw`.

    Its `hash` is the one of the bundle as it was written, in whatever schema. Raises BundleError:
    bundle_schema (a version that is not read here), bundle_manifest (fields that do not fit their
    version), bundle_checksum (the bytes are not what the hash says).
    """
    version = fields.get("schema_version")
    if isinstance(version, int) and not isinstance(version, bool):
        if version > BUNDLE_SCHEMA:
            raise _schema("the bundle needs a newer lesionlens", version)
        if version < OLDEST_SCHEMA:
            raise _schema("the bundle is older than any that can be read", version)
    try:
        kind = _WRITTEN.get(version, Manifest) if isinstance(version, int) else Manifest
        written = kind.model_validate(fields)
    except ValidationError as error:
        raise BundleError(first_fault(error), code="bundle_manifest", field=MANIFEST) from None
    # The canonical form makes every byte of the manifest count, white space too.
    if written.hash != content_hash(written) or manifest_bytes(written) != raw:
        raise BundleError(
            "the content differs from what its hash says", code="bundle_checksum", field=MANIFEST
        )
    return written if isinstance(written, Manifest) else _lifted(written)


def _lifted(old: Manifest1 | Manifest2) -> Manifest:
    """What a schema did not have yet is as it was then: no optional phase, MR, trained here, probes
    that read activations alone."""
    return Manifest.model_validate(
        old.model_dump(mode="json") | {"schema_version": BUNDLE_SCHEMA, "measurements": []}
    )


def _schema(message: str, version: int) -> BundleError:
    return BundleError(
        message,
        code="bundle_schema",
        field=MANIFEST,
        found=f"schema version {version}",
        expected=f"version {OLDEST_SCHEMA} to {BUNDLE_SCHEMA}",
    )
