"""How well a lesion's class can be told when the truth behind its image is known.

A strong tabular classifier (gradient-boosted trees) reads what `draw` decided, not voxels, and is
scored on lesions of a second seed that it never saw. Two tables:

    features    which of the fourteen features are on
    truth       their strengths too, the base tissue's two levels, the size and the border

The second is close to the Bayes rate of the generator: nobody who reads the images knows more than
what went into them. An estimate from below, since the trees too learn from finitely many lesions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.cohort.phantom.profiles import CLASSES, FEATURES
from models.cohort.phantom.spec import LesionSpec, draw
from models.errors import InputError

TABLES = ("features", "truth")
LEAST = 60  # lesions on either side: ten a class


@dataclass(frozen=True)
class Score:
    """Share of held-out lesions whose class was told. ci: 95 %, Wilson. per_class: sensitivity."""

    accuracy: float
    ci: tuple[float, float]
    per_class: dict[str, float]


@dataclass(frozen=True)
class Ceiling:
    """seeds: of the training and of the held-out lesions. scores: table -> score."""

    seeds: tuple[int, int]
    n_train: int
    n_test: int
    scores: dict[str, Score]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(n_train: int, n_test: int, seed: int) -> Ceiling:
    """Train on lesions of `seed`, score on lesions of `seed + 1`. Deterministic.

    Raises InputError for fewer than 60 lesions on either side.
    """
    for field, n in (("n", n_train), ("test", n_test)):
        if n < LEAST:
            raise InputError(
                "too few lesions", field=field, found=str(n), expected=f"at least {LEAST}"
            )
    known = [draw(seed, i) for i in range(n_train)]
    held = [draw(seed + 1, i) for i in range(n_test)]
    scores = {name: _score(name, known, held) for name in TABLES}
    return Ceiling((seed, seed + 1), n_train, n_test, scores)


def _score(name: str, known: list[LesionSpec], held: list[LesionSpec]) -> Score:
    # Needed by this estimate alone, and slow to import.
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.06, max_leaf_nodes=15, random_state=0
    )
    trees.fit(table(name, known), _classes(known))
    right = trees.predict(table(name, held)) == (true := _classes(held))
    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return Score(
        accuracy=float(right.mean()),
        ci=(float(interval.low), float(interval.high)),
        per_class={c: float(right[true == i].mean()) for i, c in enumerate(CLASSES)},
    )


def table(name: str, specs: list[LesionSpec]) -> NDArray[np.float64]:
    """One row a lesion. [n, 14] of 0 and 1, or [n, 19] with all that was drawn."""
    if name == "features":
        return np.array([[f in s.features for f in FEATURES] for s in specs], float)
    return np.array([[*_strengths(s), *s.base, *_form(s)] for s in specs], float)


def _strengths(spec: LesionSpec) -> list[float]:
    return [spec.features.get(f, 0.0) for f in FEATURES]


def _form(spec: LesionSpec) -> tuple[float, float, float]:
    """What shows of the form: a core's radius only where there is a core."""
    core = spec.form.core_radius if "hypoenhancing_core" in spec.features else np.nan
    return spec.form.diameter_mm, spec.form.roughness, core


def _classes(specs: list[LesionSpec]) -> NDArray[np.int64]:
    return np.array([CLASSES.index(s.class_id) for s in specs])
