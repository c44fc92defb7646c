"""Read a bundle, or refuse it with one clear line. Needs neither torch nor onnxruntime.

    folder -> manifest (schema, canonical bytes, own hash; an earlier one is lifted)
           -> files (present, sha256)
           -> vocabulary, probes, reference, OOD score (shapes agree with the manifest) -> Bundle

Codes of a refusal (BundleError): bundle_missing (no such folder or no manifest), bundle_schema (a
version that this code does not read), bundle_manifest (unreadable, incomplete or contradictory),
bundle_file_missing, bundle_checksum; models.bundle.runtime adds bundle_parity. The field is the
file's name. A file that the manifest does not list is never opened and does no harm (the BentoML
model store adds its own model.yaml), so it is tolerated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from models.bundle.judges import Judges
from models.bundle.manifest import (
    CARD,
    CLASSIFIER,
    CONSISTENCY,
    EVALUATION,
    GRADIENTS,
    MANIFEST,
    OPTIONAL,
    PARITY,
    PROBES,
    REFERENCE,
    RELEVANCE,
    REQUIRED,
    TRAINING,
    TRUST,
    VOCABULARY,
    first_fault,
)
from models.bundle.migrate import check_manifest
from models.bundle.parts import ParitySample, Reference
from models.errors import BundleError
from models.evaluation.calibration import softmax
from models.imaging.measurements import measure, names
from models.model import ModelInfo
from models.ood import OutOfDistributionScore
from models.passes import PassRecipe
from models.probes.evidence import Evidence
from models.probes.probeset import ProbeSet
from models.relevance.directions import Directions
from models.vocabulary import Vocabulary
from models.voi import Preprocessing
from wire.bundle import Manifest
from wire.explanation import TrustCard

__all__ = ["Bundle", "ParitySample", "Reference", "read_bundle"]


@dataclass(frozen=True)
class Bundle:
    """A checked bundle, open for reading. The ONNX graphs stay on disk until a runtime asks."""

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary
    preprocessing: Preprocessing
    recipe: PassRecipe
    temperature: float
    probes: ProbeSet
    reference: Reference
    ood: OutOfDistributionScore
    directions: Directions | None = None
    judges: Judges | None = None
    trust: tuple[TrustCard, ...] = ()

    @property
    def hash(self) -> str:
        return self.manifest.hash

    @property
    def info(self) -> ModelInfo:
        """What a model loaded from this bundle declares."""
        m = self.manifest
        return ModelInfo(
            bundle=m.hash,
            classes=tuple(m.classes),
            phases=tuple(m.phases),
            taps=dict(m.taps),
            input_shape=self.preprocessing.shape(len(m.phases)),
        )

    @property
    def evidence(self) -> Evidence:
        """Layout of the vector that probes read: taps, then image measurements."""
        return Evidence.of(self.manifest.probe_taps, self.manifest.taps, self.manifest.measurements)

    def measure(self, base: NDArray[np.float32], size_mm: Sequence[float]) -> NDArray[np.float64]:
        """The image measurements that the probes read, [m]; none for probes that read taps alone.

        base: [P, M, M, M] (models.voi.normalise). size_mm: edges of the VOI.
        """
        wanted = self.manifest.measurements
        if not wanted:
            return np.zeros(0)
        phases = tuple(self.manifest.phases)
        values = measure(base, np.asarray(size_mm, np.float64), self.preprocessing, phases)
        found = dict(zip(names(phases), values, strict=True))
        return np.array([found[name] for name in wanted], dtype=np.float64)

    def probe_vector(
        self, activations: Mapping[str, NDArray[Any]], measured: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """Taps [..., D_tap] and measurements [m] -> what the probes read, [..., D]."""
        return self.evidence.join(activations, measured).astype(np.float32)

    def probabilities(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """Logits [..., C] -> temperature-calibrated probabilities [..., C]."""
        return softmax(np.asarray(logits, dtype=np.float64) / self.temperature)

    def data(self, name: str) -> bytes:
        """Bytes of a listed file, checked against its checksum at every reading."""
        return _read(self.path, name, self.manifest.files.get(name), verify=True)

    @property
    def parity(self) -> ParitySample:
        try:
            return ParitySample.from_tensors(_tensors(PARITY, self.data(PARITY)))
        except KeyError:
            raise BundleError(
                "the stored sample has no input", code="bundle_parity", field=PARITY
            ) from None

    @property
    def training(self) -> dict[str, Any]:
        return _json(TRAINING, self.data(TRAINING))

    @property
    def evaluation(self) -> dict[str, Any]:
        return _json(EVALUATION, self.data(EVALUATION))

    @property
    def card(self) -> str:
        """The model card, Markdown."""
        return self.data(CARD).decode("utf-8")

    @property
    def classifier(self) -> bytes:
        """classifier.onnx; the bytes that were checked are the bytes that run."""
        return self.data(CLASSIFIER)

    @property
    def gradients(self) -> bytes:
        """gradients.onnx"""
        return self.data(GRADIENTS)


def read_bundle(path: Path | str, verify: bool = True) -> Bundle:
    """Read the bundle in folder `path`.

    verify=False skips the checksums, but not the manifest's own hash; the ONNX graphs are checked
    whenever a runtime opens them. Raises BundleError.
    """
    folder = Path(path)
    manifest = _manifest(folder)
    for name in sorted({*REQUIRED, *manifest.files}):
        if not (folder / name).is_file():
            raise BundleError(
                "the file is missing from the bundle", code="bundle_file_missing", field=name
            )
    needed = {
        name: _read(folder, name, manifest.files[name], verify)
        for name in sorted(manifest.files)
        if verify or name in (VOCABULARY, *PROBES, *REFERENCE, *OPTIONAL)
    }
    try:
        bundle = _assemble(folder, manifest, needed)
    except (ValidationError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BundleError(_one_line(error), code="bundle_manifest", field=MANIFEST) from None
    _agree(bundle)
    return bundle


def _manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not folder.is_dir() or not file.is_file():
        what = "the folder holds no manifest" if folder.is_dir() else "there is no such folder"
        raise BundleError(
            what, code="bundle_missing", field="bundle", found=folder.name, expected=MANIFEST
        )
    raw = file.read_bytes()
    fields = _json(MANIFEST, raw)
    manifest = check_manifest(fields, raw)
    for name in manifest.files:
        if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
            raise BundleError(
                "a file path leads out of the bundle", code="bundle_manifest", field=MANIFEST
            )
    unlisted = [name for name in REQUIRED if name not in manifest.files]
    if unlisted:
        raise BundleError(f"{unlisted[0]} is not listed", code="bundle_manifest", field=MANIFEST)
    return manifest


def _read(folder: Path, name: str, sha256: str | None, verify: bool) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError:
        raise BundleError(
            "the file cannot be read", code="bundle_file_missing", field=name
        ) from None
    if verify and hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(
            "the content differs from its checksum", code="bundle_checksum", field=name
        )
    return data


def _assemble(folder: Path, manifest: Manifest, data: Mapping[str, bytes]) -> Bundle:
    reference = _json(REFERENCE[0], data[REFERENCE[0]])
    tensors = _tensors(REFERENCE[1], data[REFERENCE[1]])
    ood = {k.removeprefix("ood/"): v for k, v in tensors.items() if k.startswith("ood/")}
    return Bundle(
        path=folder,
        manifest=manifest,
        vocabulary=Vocabulary.model_validate(_json(VOCABULARY, data[VOCABULARY])),
        preprocessing=Preprocessing.model_validate(manifest.preprocessing),
        recipe=PassRecipe.model_validate(manifest.passes),
        temperature=manifest.temperature,
        probes=ProbeSet.from_parts(
            _tensors(PROBES[1], data[PROBES[1]]), _json(PROBES[0], data[PROBES[0]])
        ),
        reference=Reference(
            tensors["activations"],
            reference["lesion_ids"],
            reference["class_ids"],
            reference["features"],
        ),
        ood=OutOfDistributionScore.from_parts(ood, reference["ood"], manifest.probe_taps),
        directions=_directions(data),
        judges=_judges(data),
        trust=_trust(data),
    )


def _directions(data: Mapping[str, bytes]) -> Directions | None:
    if RELEVANCE[0] not in data:
        return None
    return Directions.from_parts(
        _tensors(RELEVANCE[1], data[RELEVANCE[1]]), _json(RELEVANCE[0], data[RELEVANCE[0]])
    )


def _judges(data: Mapping[str, bytes]) -> Judges | None:
    if CONSISTENCY[0] not in data:
        return None
    return Judges.from_parts(
        _tensors(CONSISTENCY[1], data[CONSISTENCY[1]]), _json(CONSISTENCY[0], data[CONSISTENCY[0]])
    )


def _trust(data: Mapping[str, bytes]) -> tuple[TrustCard, ...]:
    if TRUST not in data:
        return ()
    return tuple(TrustCard.model_validate(c) for c in _json(TRUST, data[TRUST])["cards"])


def _agree(bundle: Bundle) -> None:
    """The parts must be of one model: names and lengths agree."""
    m = bundle.manifest
    taps = sum(m.taps.get(tap, 0) for tap in m.probe_taps)
    length = taps + len(m.measurements)
    pairs = {
        VOCABULARY: (
            (bundle.vocabulary.class_ids, bundle.vocabulary.phase_ids),
            (m.classes, m.phases),
        ),
        PROBES[0]: ((bundle.probes.features, bundle.probes.length), (m.features, length)),
        REFERENCE[1]: (
            (bundle.reference.activations.shape[1], bundle.ood.length),
            (taps, bundle.ood.expected_length(m.taps, len(m.phases))),
        ),
    }
    if bundle.directions is not None:
        taps_of = dict(zip(bundle.directions.taps, bundle.directions.widths, strict=True))
        pairs[RELEVANCE[0]] = ((list(bundle.directions.features), taps_of), (m.features, m.taps))
    if bundle.judges is not None:
        model = bundle.judges.features
        pairs[CONSISTENCY[0]] = (
            (list(model.classes), list(model.features)),
            (m.classes, m.features),
        )
    for name, (found, expected) in pairs.items():
        if found != expected or bundle.vocabulary.feature_ids != m.features:
            raise BundleError(
                "the file does not belong to this manifest", code="bundle_manifest", field=name
            )


def _json(name: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BundleError("the file is not a JSON object", code="bundle_manifest", field=name)
    return value


def _tensors(name: str, data: bytes) -> dict[str, NDArray[Any]]:
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError):
        raise BundleError(
            "the file is not in the safetensors format", code="bundle_manifest", field=name
        ) from None


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_fault(error)
    return str(error).splitlines()[0] if str(error) else type(error).__name__
