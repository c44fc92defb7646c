"""Lesions on their way into a fit: checked, merged, ordered and standardised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.probes.evidence import MEASUREMENTS, Evidence
from models.probes.linear import MEASURED, TrainingSet


@dataclass(frozen=True)
class Standard:
    """mean, scale: [D], float32 values. live: [D], units that vary."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    live: NDArray[np.bool_]


def training_set(
    h: NDArray[Any],
    labels: NDArray[Any],
    reference: NDArray[Any],
    features: Sequence[str],
    seed: int,
    evidence: Evidence | None,
) -> tuple[TrainingSet, Standard]:
    """Arguments as those of ProbeSet.fit, which says what becomes of them."""
    rows, y, marginal = _inputs(h, labels, reference, features)
    mean, scale, live = _standard(marginal)
    data = TrainingSet(
        z=(rows[:, live] - mean[live]) / scale[live],
        labels=y,
        reference=(marginal[:, live] - mean[live]) / scale[live],
        twin=_twins(rows, marginal),
        groups=_groups(evidence, len(live))[live],
        seed=seed,
    )
    return data, Standard(mean, scale, live)


def _inputs(
    h: NDArray[Any], labels: NDArray[Any], reference: NDArray[Any], features: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Check, merge equal rows, and bring lesions into one order."""
    rows, y = np.asarray(h, dtype=np.float32), np.asarray(labels, dtype=np.float64)
    marginal = np.asarray(reference, dtype=np.float32)
    if rows.ndim != 2 or y.shape != (len(rows), len(features)):
        raise InputError(
            "labels do not fit the lesions and features", code="wrong_shape", field="labels",
            found=str(list(y.shape)), expected=f"[{len(rows)}, {len(features)}]",
        )  # fmt: skip
    if marginal.ndim != 2 or marginal.shape[1] != rows.shape[1]:
        raise InputError(
            "the reference has another length than the lesions", code="wrong_shape",
            field="reference", found=str(list(marginal.shape)), expected=f"[m, {rows.shape[1]}]",
        )  # fmt: skip
    for field, values in (("h", rows), ("reference", marginal)):
        if not np.isfinite(values).all():
            raise InputError("holds NaN or infinity", code="not_finite", field=field)
    if not np.isin(y[np.isfinite(y)], (0.0, 1.0)).all() or np.isinf(y).any():
        raise InputError("labels are 1, 0 or NaN", code="wrong_label", field="labels")
    unique, back = np.unique(rows, axis=0, return_inverse=True)
    merged = np.full((len(unique), len(features)), np.nan)
    for lesion, given in zip(back.reshape(-1), y, strict=True):
        known = np.isfinite(given)
        clash = known & np.isfinite(merged[lesion]) & (merged[lesion] != given)
        merged[lesion] = np.where(known, given, merged[lesion])
        merged[lesion, clash] = np.nan
    if len(marginal) < 2:
        marginal = unique
    marginal = marginal[np.lexsort(marginal.T[::-1])] if len(marginal) else marginal
    return unique.astype(np.float64), merged, marginal.astype(np.float64)


def _groups(evidence: Evidence | None, units: int) -> NDArray[np.int64]:
    """TrainingSet.groups, [D]."""
    groups = np.zeros(units, dtype=np.int64)
    if evidence is None:
        return groups
    if evidence.length != units:
        raise InputError(
            "the evidence has another length than the lesions", code="wrong_shape",
            field="evidence", found=str(evidence.length), expected=str(units),
        )  # fmt: skip
    for i, (name, place) in enumerate(evidence.slices.items()):
        groups[place] = MEASURED if name == MEASUREMENTS else i
    return groups


def _standard(
    marginal: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Mean and scale [D] as float32 values, and which units are alive."""
    if len(marginal) == 0:
        d = marginal.shape[1]
        return np.zeros(d), np.ones(d), np.zeros(d, dtype=bool)
    mean, deviation = marginal.mean(axis=0), marginal.std(axis=0)
    live = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scale = np.where(live, deviation, 1.0)
    return mean.astype(np.float32).astype(float), scale.astype(np.float32).astype(float), live


def _twins(rows: NDArray[np.float64], marginal: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each labelled lesion its row in the reference, or -1."""
    where = {row.tobytes(): i for i, row in enumerate(marginal)}
    return np.array([where.get(row.tobytes(), -1) for row in rows], dtype=np.int64)
