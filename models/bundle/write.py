"""Write a bundle: all files into a temporary folder beside the target, then one rename."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from models.bundle.card import card
from models.bundle.manifest import (
    CARD,
    CLASSIFIER,
    CONSISTENCY,
    EVALUATION,
    GRADIENTS,
    MANIFEST,
    METADATA,
    PARITY,
    PROBES,
    REFERENCE,
    RELEVANCE,
    TRAINING,
    TRUST,
    VOCABULARY,
    content_hash,
    json_bytes,
    manifest_bytes,
)
from models.bundle.metadata import metadata
from models.bundle.parts import BundleParts
from models.errors import BundleError
from wire.bundle import Manifest


def write_bundle(folder: Path, parts: BundleParts) -> Manifest:
    """Write `parts` as the bundle `folder`. Same parts, same bytes, same hash.

    The folder appears whole or not at all. An earlier bundle or an empty folder in its place is
    replaced; a folder with anything else is left alone.

    Raises BundleError: bundle_parts (the parts contradict each other), bundle_target (the folder
    holds something that is no bundle).
    """
    _check(parts)
    files = _files(parts)
    fields: dict[str, Any] = {
        "name": parts.name,
        "architecture": parts.architecture,
        "trained_on": parts.trained_on,
        "synthetic": parts.synthetic,
        "classes": parts.vocabulary.class_ids,
        "phases": parts.vocabulary.phase_ids,
        "optional_phases": list(parts.optional_phases),
        "modality": parts.modality,
        "origin": parts.origin,
        "features": parts.vocabulary.feature_ids,
        "taps": dict(parts.taps),
        "probe_taps": list(parts.probe_taps),
        "measurements": list(parts.measurements),
        "preprocessing": parts.preprocessing.model_dump(mode="json"),
        "passes": parts.recipe.model_dump(mode="json"),
        "temperature": float(parts.temperature),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    unsigned = Manifest(hash="", **fields)
    manifest = unsigned.model_copy(update={"hash": content_hash(unsigned)})
    files[MANIFEST] = manifest_bytes(manifest)
    _publish(folder, files)
    return manifest


def _files(parts: BundleParts) -> dict[str, bytes]:
    probe_tensors, probe_meta = parts.probes.to_parts()
    ood_tensors, ood_meta = parts.ood.to_parts()
    reference = {
        "lesion_ids": parts.reference.lesion_ids,
        "class_ids": parts.reference.class_ids,
        "features": parts.reference.features,
        "ood": ood_meta,
    }
    tensors = {"activations": parts.reference.activations}
    tensors |= {f"ood/{name}": value for name, value in ood_tensors.items()}
    files = {
        CLASSIFIER: _bytes(parts.classifier),
        GRADIENTS: _bytes(parts.gradients),
        VOCABULARY: json_bytes(parts.vocabulary.model_dump(mode="json")),
        PROBES[0]: json_bytes(probe_meta),
        PROBES[1]: tensor_bytes(probe_tensors),
        REFERENCE[0]: json_bytes(reference),
        REFERENCE[1]: tensor_bytes(tensors),
        PARITY: tensor_bytes(parts.parity.to_tensors()),
        TRAINING: json_bytes(parts.training),
        EVALUATION: json_bytes(parts.evaluation),
        CARD: card(parts).encode("utf-8"),
        METADATA: json_bytes(metadata(parts)),
    }
    if parts.directions is not None:
        tensors, meta = parts.directions.to_parts()
        files |= {RELEVANCE[0]: json_bytes(meta), RELEVANCE[1]: tensor_bytes(tensors)}
    if parts.judges is not None:
        tensors, meta = parts.judges.to_parts()
        files |= {CONSISTENCY[0]: json_bytes(meta), CONSISTENCY[1]: tensor_bytes(tensors)}
    if parts.trust:
        files[TRUST] = json_bytes({"cards": [c.model_dump(mode="json") for c in parts.trust]})
    return files


def tensor_bytes(tensors: dict[str, NDArray[Any]]) -> bytes:
    """safetensors, deterministic: sorted by name, contiguous, float32 or integer."""
    return save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})


def _bytes(source: Path | bytes) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


def _check(parts: BundleParts) -> None:
    """Contradictions between parts are found here, not by the first server that loads them."""
    known = [tap for tap in parts.probe_taps if tap not in parts.taps]
    faults = {
        "probe_taps": f"no such tap {known[0]!r}" if known else "",
        "probes": _differ("features", parts.probes.features, parts.vocabulary.feature_ids),
    }
    if not known:
        evidence = parts.evidence
        faults |= {
            "probes.length": _differ("length", parts.probes.length, evidence.length),
            "reference": _differ(
                "length", parts.reference.activations.shape[1], evidence.tap_length
            ),
            "ood": _differ(
                "length",
                parts.ood.length,
                parts.ood.expected_length(parts.taps, len(parts.vocabulary.phase_ids)),
            ),
        }
    if parts.directions is not None:
        faults["directions"] = _differ(
            "features and taps",
            (
                parts.directions.features,
                dict(zip(parts.directions.taps, parts.directions.widths, strict=True)),
            ),
            (tuple(parts.vocabulary.feature_ids), parts.taps),
        )
    if parts.judges is not None:
        faults["judges"] = _differ(
            "classes and features",
            (parts.judges.features.classes, parts.judges.features.features),
            (tuple(parts.vocabulary.class_ids), tuple(parts.vocabulary.feature_ids)),
        )
    classes = set(parts.vocabulary.class_ids)
    strange = sorted(set(parts.reference.class_ids) - classes)
    late = parts.vocabulary.phase_ids[1:]
    wrong = [phase for phase in parts.optional_phases if phase not in late]
    faults["optional_phases"] = f"{wrong[0]!r} is no late phase" if wrong else ""
    faults["reference.class_ids"] = f"no such class {strange[0]!r}" if strange else ""
    for field, fault in faults.items():
        if fault:
            raise BundleError(fault, code="bundle_parts", field=field)


def _differ(what: str, found: object, expected: object) -> str:
    return "" if found == expected else f"{what}: found {found}, expected {expected}"


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    folder = folder.absolute()
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if occupied and not (folder / MANIFEST).is_file():
        raise BundleError(
            "the folder holds something that is no bundle",
            code="bundle_target",
            field=folder.name,
            expected="an empty folder, an earlier bundle, or nothing",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh, earlier = work / "new", work / "old"
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        if folder.exists():
            folder.rename(earlier)
        fresh.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
