"""Everything that defines one synthetic lesion, drawn from (seed, index) alone.

A spec holds no voxels: `render` turns it into images. `without` switches features off and leaves
all else, noise included, as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from models.cohort.phantom import profiles
from models.cohort.phantom.geometry import (
    TONGUE_PEAK,
    Extent,
    Form,
    bumps,
    direction,
    nodules,
    tongues,
)
from models.cohort.phantom.geometry import extent as measure
from models.cohort.phantom.kinetics import Perfusion
from models.cohort.phantom.profiles import CLASSES, FEATURES
from models.errors import InputError

PHASES = ("arterial", "portal_venous", "delayed")
_LEAST_HALF_MM = 13.0  # half of the smallest field of view
_BLOCK = 12  # lesions laid out together: each class twice, cut into patients

# One stream of random numbers for each purpose, so that none disturbs another.
LAYOUT, PATIENT, LESION, ANATOMY, NOISE, FEATURE, NEIGHBOUR, OUTSIDE = range(8)


@dataclass(frozen=True)
class Scanner:
    """What the patient and the scanner contribute; the same for all lesions of a patient.

    spacing: mm, [column, row, slice]. times: seconds after injection, by phase. noise: standard
    deviation of each Rician channel and bias: largest deviation of the coil sensitivity, both over
    unenhanced parenchyma. gain: stored units for unenhanced parenchyma.
    """

    spacing: tuple[float, float, float]
    times: Mapping[str, float]
    noise: float
    bias: float
    gain: float
    perfusion: Perfusion


@dataclass(frozen=True)
class Neighbour:
    """Another lesion of the patient, in view: lesion `index`, `offset_mm` off, centre to centre."""

    index: int
    class_id: str
    offset_mm: tuple[float, float, float]


@dataclass(frozen=True)
class LesionSpec:
    """One synthetic lesion.

    shape: voxels, large enough for a field of view of twice the box's longest edge in each phase.
    centre_mm: the lesion's centre from the grid's. base: signal of featureless lesion tissue over
    parenchyma, arterial and late. shifts: mm by which a phase is displaced against the first.
    margin: voxels that the reader's box is wider than the lesion, [low or high, axis]. features:
    id -> strength in (0, 1] for those that are on. drawn: the same as first drawn; it sets the
    reader's box, which stays where it is when a feature is switched off.
    """

    seed: int
    index: int
    lesion_id: str
    patient_id: str
    class_id: str
    shape: tuple[int, int, int]
    centre_mm: tuple[float, float, float]
    scanner: Scanner
    form: Form
    base: tuple[float, float]
    shifts: Mapping[str, tuple[float, float, float]]
    margin: tuple[tuple[int, int, int], tuple[int, int, int]]
    neighbour: Neighbour | None
    features: Mapping[str, float]
    drawn: Mapping[str, float]

    def without(self, *features: str) -> LesionSpec:
        """The same lesion with these features off. Unknown ids raise InputError."""
        for feature in features:
            _known(feature)
        left = {f: s for f, s in self.features.items() if f not in features}
        return replace(self, features=left)

    def with_strength(self, feature: str, strength: float) -> LesionSpec:
        """The same lesion with a feature that it has at another strength in (0, 1]."""
        _known(feature)
        if feature not in self.features or not 0 < strength <= 1:
            raise InputError(
                "no such strength",
                field=feature,
                found=str(strength),
                expected="a feature that is on, strength above 0 and up to 1",
            )
        return replace(self, features={**self.features, feature: float(strength)})

    def extent(self, full: bool = False) -> Extent:
        """What the lesion as first drawn takes up; `full`: with each of its features at 1."""
        return _extent(self.seed, self.index, self.form, self.drawn, full)

    def rng(self, stream: int, *more: int) -> np.random.Generator:
        """A generator for one purpose; it does not depend on the features."""
        return np.random.default_rng([self.seed, stream, self.index, *more])


def _known(feature: str) -> None:
    if feature not in FEATURES:
        raise InputError(
            "unknown feature", field="feature", found=feature, expected=", ".join(FEATURES)
        )


@lru_cache(maxsize=4096)
def _layout(seed: int, block: int) -> tuple[tuple[str, int], ...]:
    """(class, index of the patient's first lesion) for each lesion of a block."""
    rng = np.random.default_rng([seed, LAYOUT, block])
    runs: list[list[str]] = []
    for name in CLASSES:
        # Lesions of one patient are often, not always, of one kind.
        runs += [[name, name]] if rng.random() < 0.5 else [[name], [name]]
    classes = [c for i in rng.permutation(len(runs)) for c in runs[i]]
    first: list[int] = []
    while len(first) < _BLOCK:
        size = int(rng.choice(3, p=(0.55, 0.30, 0.15))) + 1
        first += [block * _BLOCK + len(first)] * min(size, _BLOCK - len(first))
    return tuple(zip(classes, first, strict=True))


def draw(
    seed: int,
    index: int,
    class_id: str | None = None,
    *,
    atypical_share: float = profiles.ATYPICAL_SHARE,
) -> LesionSpec:
    """Draw lesion `index` of the cohort `seed`; the same arguments give the same lesion.

    `class_id` overrides the class that the layout gives; it may be one outside the classes
    ('abscess'). atypical_share: chance that its features follow the average over the classes by
    half. Raises InputError for a negative seed or index, or an unknown class.
    """
    if seed < 0 or index < 0:
        raise InputError("negative", field="seed", expected="seed and index of 0 or more")
    laid, first = _layout(seed, index // _BLOCK)[index % _BLOCK]
    name = class_id or laid
    known = CLASSES + profiles.OUTSIDE_CLASSES
    if name not in known:
        raise InputError("unknown class", field="class", found=name, expected=", ".join(known))
    scanner = _scanner(np.random.default_rng([seed, PATIENT, first]))
    rng = np.random.default_rng([seed, LESION, index])
    features = _features(name, rng, atypical_share)
    form = _form(name, features, rng)
    base = _base(name, features, rng)
    shifts = _shifts(rng)
    extent = _extent(seed, index, form, features)
    margin = np.round(rng.uniform(0, 2, (2, 3)) / scanner.spacing).astype(int)
    shape, centre = _grid(extent, margin, shifts, scanner.spacing, rng.uniform(-0.5, 0.5, 3))
    return LesionSpec(
        seed=seed,
        index=index,
        lesion_id=f"L{index:05d}",
        patient_id=f"P{first:05d}",
        class_id=name,
        shape=shape,
        centre_mm=centre,
        scanner=scanner,
        form=form,
        base=base,
        shifts=shifts,
        margin=tuple(tuple(int(v) for v in side) for side in margin),  # type: ignore[arg-type]
        neighbour=_neighbour(seed, index, class_id, extent.reach),
        features=features,
        drawn=features,
    )


def _extent(
    seed: int, index: int, form: Form, features: Mapping[str, float], full: bool = False
) -> Extent:
    strength = {f: 1.0 if full else s for f, s in features.items()}
    beyond, balls = 0.0, []
    if s := strength.get("infiltrative_growth"):
        beyond = TONGUE_PEAK * tongues(s)
    if s := strength.get("nodular_growth"):
        place = FEATURES.index("nodular_growth")
        balls = nodules(np.random.default_rng([seed, FEATURE, index, place]), form, s)
    border = bumps(np.random.default_rng([seed, ANATOMY, index, 0]))
    return measure(form, border, beyond, balls)


def _neighbour(seed: int, index: int, class_id: str | None, reach: float) -> Neighbour | None:
    """One of the patient's other lesions, for every third lesion that has such a one."""
    block, place = divmod(index, _BLOCK)
    layout = _layout(seed, block)
    others = [i for i, (_, first) in enumerate(layout) if first == layout[place][1] and i != place]
    rng = np.random.default_rng([seed, NEIGHBOUR, index])
    if not others or rng.random() >= 0.35:
        return None
    chosen = int(rng.choice(others))
    other = block * _BLOCK + chosen
    name = class_id or layout[chosen][0]
    theirs = np.random.default_rng([seed, LESION, other])
    features = _features(name, theirs)
    form = _form(name, features, theirs)
    away = reach + _extent(seed, other, form, features).reach + rng.uniform(1, 8)
    return Neighbour(other, name, _three(direction(rng) * away))


def _scanner(rng: np.random.Generator) -> Scanner:
    in_plane = round(float(rng.uniform(1.0, 1.6)), 2)
    slices = float(rng.choice((2.0, 2.5, 3.0, 3.5, 4.0)))
    delays = (rng.normal(20, 2.0), rng.normal(70, 6.0), rng.normal(180, 14.0))
    return Scanner(
        spacing=(in_plane, in_plane, slices),
        times={p: round(float(t), 1) for p, t in zip(PHASES, delays, strict=True)},
        noise=float(rng.uniform(0.03, 0.07)),
        bias=float(rng.uniform(0.04, 0.15)),
        gain=float(rng.uniform(220, 480)),
        perfusion=Perfusion(float(rng.uniform(0.85, 1.15)), float(rng.uniform(32, 46))),
    )


def _features(
    class_id: str, rng: np.random.Generator, atypical_share: float = profiles.ATYPICAL_SHARE
) -> dict[str, float]:
    """One to four features given the class, without contradictions; id -> strength.

    None outside the classes.
    """
    if class_id in profiles.OUTSIDE_CLASSES:
        return {}
    blend = 0.5 if rng.random() < atypical_share else 0.0
    chances = {
        f: (1 - blend) * profiles.chance(f, class_id) + blend * profiles.mean_chance(f)
        for f in FEATURES
    }
    # A contradiction is settled in favour of the first, so the likelier tends to come first.
    keys = {f: rng.random() ** (1 / max(chances[f], 1e-3)) for f in FEATURES}
    chosen: list[str] = []
    for f in sorted(FEATURES, key=lambda f: -keys[f]):
        if rng.random() < chances[f] and not any(profiles.conflict(f, g) for g in chosen):
            chosen.append(f)
    if not chosen:
        chosen = [max(FEATURES, key=lambda f: keys[f])]
    chosen = chosen[: profiles.MOST_FEATURES]
    faint = {f: profiles.chance(f, class_id) < 0.3 for f in chosen}
    return {
        f: round(float(rng.uniform(0.35, 0.9) if faint[f] else rng.uniform(0.45, 1.0)), 3)
        for f in FEATURES
        if f in chosen
    }


def _form(class_id: str, features: Mapping[str, float], rng: np.random.Generator) -> Form:
    kind = profiles.profile(class_id)
    smallest = max([kind.smallest_mm, *(profiles.SMALLEST_MM.get(f, 0.0) for f in features)])
    largest = min([56.0, *(profiles.LARGEST_MM.get(f, 56.0) for f in features)])
    diameter = float(np.clip(kind.diameter_mm * np.exp(rng.normal(0, 0.35)), smallest, largest))
    axes = np.exp(rng.normal(0, 0.10, 3))
    axes /= np.cbrt(axes.prod())
    return Form(
        diameter_mm=round(diameter, 2),
        axes=_three(axes),
        angles=_three(rng.uniform(0, np.pi, 3)),
        roughness=kind.roughness * float(rng.uniform(0.6, 1.4)),
        core_radius=float(rng.uniform(*kind.core_radius)),
    )


def _base(
    class_id: str, features: Mapping[str, float], rng: np.random.Generator
) -> tuple[float, float]:
    """Levels that no feature's label would be true of: neither iso, nor washing out, nor rising."""
    kind = profiles.profile(class_id)
    mean, spread = kind.base
    if "arterial_hyperenhancement" in features:
        level = float(rng.normal(1.0, 0.03))
        late = 0.88 if rng.random() < kind.darker_late else 1.12
        return level, late + float(np.clip(rng.normal(0, 0.015), -0.04, 0.04))
    level = float(np.clip(rng.normal(mean, spread), 0.5, 0.91))
    return level, level + float(np.clip(rng.normal(0, 0.015), -0.03, 0.03))


def _shifts(rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    """Breath-hold misregistration; the first phase is the reference."""
    drift = {p: np.clip(rng.normal(0, 0.7, 3), -1.8, 1.8) for p in PHASES[1:]}
    return {PHASES[0]: (0.0, 0.0, 0.0), **{p: _three(d) for p, d in drift.items()}}


def _grid(
    extent: Extent,
    margin: np.ndarray,
    shifts: Mapping[str, tuple[float, float, float]],
    spacing: tuple[float, float, float],
    jitter: np.ndarray,
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """(shape, the lesion's centre from the grid's in mm): room for the whole field of view.

    A field of view is a cube of twice the box's longest edge, centred on the box of each phase.
    """
    step = np.array(spacing)
    # Half a voxel on either side: a voxel belongs to the lesion by its centre.
    low = extent.low - (margin[0] + 0.5) * step
    high = extent.high + (margin[1] + 0.5) * step
    half = max(float((high - low).max()), _LEAST_HALF_MM)
    drift = np.round(np.array(list(shifts.values())) / step) * step
    middle = (low + high) / 2
    low, high = middle - half + drift.min(axis=0), middle + half + drift.max(axis=0)
    x, y, z = (int(v) + 2 for v in np.ceil((high - low) / step))
    return (x, y, z), _three(jitter * step - (low + high) / 2)


def _three(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
