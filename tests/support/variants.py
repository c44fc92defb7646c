"""A small bundle with variants, made without a cohort: what is measured of them is made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.bundle.precision import errors, open_classifier, tolerated
from models.bundle.read import read_bundle
from models.bundle.variant import kind_of, write_variant
from services.training.quantise import quantise
from tests.models.bundle import tiny_onnx
from wire.variant import Budget, Estimate, MapAgreement, Measured, Speed, VariantRecord

REASON = "class accuracy falls by 0.25, at most 0.005 is allowed"


def record(kind: str, parent: str, **changes: object) -> VariantRecord:
    """Of an accepted variant that lost nothing."""
    none = Estimate(fp32=0.9, variant=0.9, loss=0.0, ci=(-0.01, 0.01))
    fields = {
        "kind": kind,
        "hash": "",
        "parent": parent,
        "accepted": True,
        "reasons": [],
        "runtime": "made up",
        "machine": "made up",
        "calibration": {},
        "tolerance": {},
        "budget": Budget(),
        "measured": Measured(
            cohort="c-0", n=4, passes=2, accuracy=none, probe_auroc=none,
            maps=MapAgreement(mean=1.0, least=1.0, drawn=0),
            same_class=1.0, largest_difference=0.0, outside=(0, 0),
        ),
        "speed": Speed(fp32_ms=2.0, variant_ms=1.0, speedup=(1.9, 2.0, 2.1), rounds=3),
        "files": {},
    }  # fmt: skip
    return VariantRecord.model_validate(fields | changes)


def add(folder: Path, kind: str, *, accepted: bool = True, **changes: object) -> VariantRecord:
    """Write a variant that runs, with the tolerance of its own errors."""
    bundle, chosen = read_bundle(folder), kind_of(kind)
    graph = None
    if chosen.quantised:
        rows = list(tiny_onnx.images(16, 8))
        graph = quantise(bundle.classifier, rows, first_in_float=False)
    classifier = open_classifier(chosen, bundle.info, graph or bundle.classifier)
    made = record(kind, bundle.hash, tolerance=tolerated(errors(classifier, bundle)))
    if not accepted:
        made = made.model_copy(update={"accepted": False, "reasons": [REASON]})
    return write_variant(folder, made.model_copy(update=changes), graph)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
