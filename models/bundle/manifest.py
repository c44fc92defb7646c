"""The manifest's bytes and its content address, computed alike when writing and when reading."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ValidationError

MANIFEST = "manifest.json"
CLASSIFIER = "classifier.onnx"
GRADIENTS = "gradients.onnx"
VOCABULARY = "vocabulary.json"
PROBES = ("probes.json", "probes.safetensors")
REFERENCE = ("reference.json", "reference.safetensors")
PARITY = "parity.safetensors"
RELEVANCE = ("relevance.json", "relevance.safetensors")
CONSISTENCY = ("consistency.json", "consistency.safetensors")
TRUST = "trust.json"
TRAINING = "training.json"
EVALUATION = "evaluation.json"
CARD = "card.md"
METADATA = "metadata.json"

REQUIRED = (
    CLASSIFIER,
    GRADIENTS,
    VOCABULARY,
    *PROBES,
    *REFERENCE,
    PARITY,
    TRAINING,
    EVALUATION,
    CARD,
    METADATA,
)
# What a network or a cohort may not allow, and what earlier schemas did not have.
OPTIONAL = (*RELEVANCE, *CONSISTENCY, TRUST)


def json_bytes(value: Any) -> bytes:
    """Canonical JSON for people and hashes: sorted keys, two spaces, one newline at the end.

    NaN and infinity are refused: they are no JSON.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def manifest_bytes(manifest: BaseModel) -> bytes:
    """The one way to write a manifest, keys in the order of the message.

    The order of `taps` carries meaning (the network's order), so keys are not sorted.
    """
    text = json.dumps(
        manifest.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False
    )
    return (text + "\n").encode("utf-8")


def content_hash(manifest: BaseModel) -> str:
    """'b-' and 20 hex digits over every field but the hash itself.

    The fields hold the sha256 of each file, so this addresses the whole content. `manifest` is of
    any schema version: all have had `files` and `taps`.
    """
    fields = manifest.model_dump(mode="json", exclude={"hash"})
    fields["files"] = sorted(fields["files"].items())
    fields["taps"] = list(fields["taps"].items())
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "b-" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:20]


def first_fault(error: ValidationError) -> str:
    """The first fault of a record as one line: its place, then what is wrong there."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]) + ": " + str(first["msg"])
