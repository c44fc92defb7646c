"""The document and the maps as bytes, and the id of an explanation.

Same lesion, bundle, parameters and code: same id, same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from wire.api import ExplanationParameters
from wire.explanation import SCHEMA_VERSION, Explanation


@cache
def code_version() -> str:
    """Version of the installed package; 'source' in a bare checkout."""
    try:
        return version("lesionlens")
    except PackageNotFoundError:
        return "source"


def document_bytes(document: Explanation) -> bytes:
    """Canonical JSON: sorted keys, UTF-8, one newline at the end."""
    content = document.model_dump(mode="json")
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def explanation_id(lesion_id: str, bundle_hash: str, parameters: ExplanationParameters) -> str:
    """'exp-' and 24 hex digits over everything that the document depends on."""
    parts = {
        "lesion": lesion_id,
        "bundle": bundle_hash,
        "parameters": parameters.model_dump(mode="json"),
        "schema": SCHEMA_VERSION,
        "code": code_version(),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return "exp-" + hashlib.sha256(text.encode()).hexdigest()[:24]


def maps_bytes(maps: Mapping[str, NDArray], *, compressed: bool = True) -> bytes:
    """Maps as .npz, keys sorted, without times: the same maps give the same bytes."""
    buffer = io.BytesIO()
    write = np.savez_compressed if compressed else np.savez
    write(buffer, **{name: maps[name] for name in sorted(maps)})  # type: ignore[arg-type]
    return buffer.getvalue()


def maps_from_bytes(data: bytes) -> dict[str, NDArray[np.float32]]:
    """The inverse; never unpickles."""
    with np.load(io.BytesIO(data), allow_pickle=False) as z:
        return {name: z[name] for name in z.files}
