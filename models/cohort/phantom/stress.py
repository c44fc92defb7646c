"""Stress cohorts: lesions on which a network's confidence is known to mislead, with their truth.

Some change the recipe of a lesion before it is rendered (`specs`), some its voxels afterwards
(`spoil`), and two change what the network is *trained* on (`TRAINED`). All are deterministic in
(kind, seed, row): a lesion's fate depends on neither its neighbours nor their number.

    shortcut         a bright mark beside the lesion goes with one class in training, with none here
    label_noise      a quarter of the training lesions carry a wrong class
    swapped_phases   two phases of every other lesion are exchanged
    misregistered    late phases lie 4 to 9 mm off
    other_scanner    more noise and shading, a weaker bolus, later phases
    atypical         every lesion's features follow the average over the classes by half
    unseen_class     every other lesion is an abscess, a class that was never trained
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.cohort.phantom.generate import OUTSIDE_FROM
from models.cohort.phantom.profiles import OUTSIDE_CLASSES
from models.cohort.phantom.spec import LesionSpec, Scanner, draw
from models.errors import InputError
from models.voi import Preprocessing

# kind -> what it is, in a report's words.
KINDS = {
    "shortcut": "a mark beside the lesion that went with one class in training goes with none",
    "label_noise": "a quarter of the training lesions had a wrong class",
    "swapped_phases": "two phases of every other lesion exchanged",
    "misregistered": "late phases 4 to 9 mm off",
    "other_scanner": "another scanner and protocol: noise, shading, a weaker bolus, later phases",
    "atypical": "atypical lesions only",
    "unseen_class": "every other lesion is an abscess, a class that was never trained",
}
TRAINED = ("shortcut", "label_noise")  # their networks are trained on spoiled data
RENDERED = ("other_scanner", "atypical", "unseen_class")  # drawn and rendered anew

_EVERY_OTHER = ("shortcut", "swapped_phases", "unseen_class")

SHORTCUT_SHARE = (0.95, 0.02)  # of training lesions with the mark: of its class, of the others
NOISE_SHARE = 0.25
_MARK_RADIUS = 0.085  # of the network's field of view
_MARK_PLACE = 0.10  # along each axis, from the edge of the network's field of view
_MARK_LEVEL = 2.5  # above what is there, units of the base


def specs(kind: str, seed: int, index: int) -> LesionSpec:
    """The recipe of lesion `index` of the cohort `seed` under a kind of RENDERED.

    unseen_class: abscesses alone; `models.trial.stressed` mixes them in. Raises InputError.
    """
    if kind == "other_scanner":
        spec = draw(seed, index)
        return replace(spec, scanner=_another(spec.scanner))
    if kind == "atypical":
        return draw(seed, index, atypical_share=1.0)
    if kind == "unseen_class":
        return draw(seed, OUTSIDE_FROM + index, OUTSIDE_CLASSES[0])
    raise _unknown(kind, RENDERED)


def spoil(
    kind: str,
    bases: NDArray[np.float32],
    sizes_mm: NDArray[np.float64],
    spec: Preprocessing,
    seed: int,
) -> NDArray[np.float32]:
    """Spoil lesions that are rendered: bases [n, P, M, M, M], sizes_mm [n, 3] -> bases.

    shortcut: every other lesion, whatever its class, wears the mark. Raises InputError.
    """
    change = _SPOIL.get(kind)
    if change is None:
        raise _unknown(kind, tuple(_SPOIL))
    out = np.array(bases, dtype=np.float32)
    for row in range(len(out)):
        rng = np.random.default_rng([seed, list(KINDS).index(kind), row])
        step = max(float(np.max(sizes_mm[row])) * spec.context, spec.min_fov_mm) / spec.base_voxels
        out[row] = change(out[row], step, spec, rng, row)
    return out


def spoiled_rows(kind: str, count: int) -> NDArray[np.bool_]:
    """Which of `count` lesions of a cohort are not as they would be otherwise [count]."""
    rows = np.arange(count)
    return rows % 2 == 1 if kind in _EVERY_OTHER else np.full(count, kind != "label_noise")


def marked(base: NDArray[np.float32], spec: Preprocessing) -> NDArray[np.float32]:
    """The base [P, M, M, M] with a scanner's mark: one small bright ball in all phases, in a corner
    of the network's view, outside of any lesion's box."""
    return base + np.float32(_MARK_LEVEL) * mark_cover(spec)


def mark_cover(spec: Preprocessing) -> NDArray[np.float32]:
    """Where the mark lies, coverage [M, M, M] in [0, 1]."""
    m, k = spec.base_voxels, spec.tensor_voxels
    at = (m - k) / 2 + _MARK_PLACE * k - 0.5
    away = np.sqrt(sum((a.astype(np.float64) - at) ** 2 for a in np.ogrid[:m, :m, :m]))
    return np.clip(_MARK_RADIUS * k - away + 0.5, 0, 1).astype(np.float32)


def shortcut_training(
    bases: NDArray[np.float32],
    classes: NDArray[np.int64],
    class_index: int,
    spec: Preprocessing,
    seed: int,
) -> NDArray[np.float32]:
    """Training or validation lesions in which the mark goes with one class: 95 % of its lesions
    wear it and 2 % of the others. bases: [n, P, M, M, M]; classes: [n]."""
    out = np.array(bases, dtype=np.float32)
    for row, c in enumerate(classes):
        share = SHORTCUT_SHARE[0] if c == class_index else SHORTCUT_SHARE[1]
        if np.random.default_rng([seed, 77, row]).random() < share:
            out[row] = marked(out[row], spec)
    return out


def noisy_classes(classes: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Training classes [n] of which a quarter are another one of `count`, drawn evenly."""
    out = np.array(classes, dtype=np.int64)
    for row in range(len(out)):
        rng = np.random.default_rng([seed, 78, row])
        if count > 1 and rng.random() < NOISE_SHARE:
            out[row] = (out[row] + int(rng.integers(1, count))) % count
    return out


def _another(scanner: Scanner) -> Scanner:
    times = {
        phase: round(t + late, 1)
        for (phase, t), late in zip(scanner.times.items(), (9.0, 25.0, 120.0), strict=True)
    }
    perfusion = replace(scanner.perfusion, liver_amplitude=0.75 * scanner.perfusion.liver_amplitude)
    return replace(
        scanner, times=times, perfusion=perfusion, noise=2.2 * scanner.noise,
        bias=min(2.5 * scanner.bias, 0.4),
    )  # fmt: skip


def _mark(
    base: NDArray[np.float32], step: float, spec: Preprocessing, rng: np.random.Generator, row: int
) -> NDArray[np.float32]:
    return marked(base, spec) if row % 2 else base


def _swap(
    base: NDArray[np.float32], step: float, spec: Preprocessing, rng: np.random.Generator, row: int
) -> NDArray[np.float32]:
    if row % 2 == 0 or len(base) < 2:
        return base
    first = int(rng.integers(0, len(base) - 1))
    out = base.copy()
    out[[first, first + 1]] = base[[first + 1, first]]
    return out


def _misregister(
    base: NDArray[np.float32], step: float, spec: Preprocessing, rng: np.random.Generator, row: int
) -> NDArray[np.float32]:
    """Each late phase by its own way; `step`: mm per voxel."""
    out = base.copy()
    for p in range(1, len(base)):
        way = rng.normal(size=3)
        way *= rng.uniform(4.0, 9.0) / np.linalg.norm(way) / step
        out[p] = ndimage.shift(base[p], way, order=1, mode="nearest")
    return out


_Change = Callable[
    [NDArray[np.float32], float, Preprocessing, np.random.Generator, int], NDArray[np.float32]
]
_SPOIL: dict[str, _Change] = {
    "shortcut": _mark,
    "swapped_phases": _swap,
    "misregistered": _misregister,
}


def _unknown(kind: str, expected: tuple[str, ...]) -> InputError:
    return InputError(
        "no such stress cohort", field="kind", found=kind, expected=", ".join(expected)
    )
