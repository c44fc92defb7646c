"""Examples with and without a feature, from training lesions: what `Directions` are learned from.

    phantom cohort   the lesion is rendered again with the feature switched off
    any other        the feature is edited out of the lesion's image (models.imaging.edits)

Rendering asks nobody for labels; edits use those lesions alone that probes were given labels of, so
that the budget of labels stays what it is. A feature without an edit or without a labelled lesion
has no pairs, and its relevance is of first order only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.cnn.data import SplitArrays
from models.cnn.export import open_session
from models.cohort.format import Cohort
from models.cohort.phantom.generate import TRUTH_FILE, seed_of
from models.cohort.phantom.profiles import FEATURES
from models.cohort.phantom.rendering import render
from models.cohort.phantom.spec import PHASES, draw
from models.errors import InputError
from models.imaging import edits
from models.relevance.directions import Directions
from models.vocabulary import Vocabulary
from models.voi import Preprocessing, centre, extract, normalise, without
from models.volume import Study
from services.training.activations import Activations

# (row in the split, index of the feature) -> the base without it [P, M, M, M], None where it cannot
# be taken away
Off = Callable[[int, int], NDArray[np.float32] | None]


@dataclass(frozen=True)
class Phantom:
    """A synthetic cohort that can be rendered again. index: lesion id -> its number."""

    seed: int
    index: dict[str, int]

    @classmethod
    def of(cls, cohort: Cohort) -> Phantom | None:
        """None for a cohort that is no phantom of this generator's version."""
        try:
            seed = seed_of(cohort.root)
        except InputError:
            return None
        truth = json.loads((cohort.root / TRUTH_FILE).read_text("utf-8"))
        return cls(seed, {name: int(row["index"]) for name, row in truth["lesions"].items()})


def fit_directions(
    classifier: Path,
    training: SplitArrays,
    at_training: Activations,
    labelled: NDArray[np.int64],
    vocabulary: Vocabulary,
    spec: Preprocessing,
    *,
    phantom: Phantom | None,
    per_feature: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Directions | None:
    """Directions from up to `per_feature` pairs of each feature; None where there is not one pair.

    classifier: the ONNX graph. at_training: plain activations of the split. labelled: rows whose
    feature labels may be used for edits. Same seed, same directions, whatever the order of lesions.
    """
    features = vocabulary.feature_ids
    if phantom is not None and set(vocabulary.phase_ids) <= set(PHASES):
        off, origin = _renders(phantom, training, vocabulary, spec), "rendering"
        rows = np.array([i for i, name in enumerate(training.ids) if name in phantom.index], int)
        known = [i for i, f in enumerate(features) if f in FEATURES]
    else:
        off, origin = _edits(training, vocabulary, spec), "edit"
        rows = np.asarray(labelled)
        known = [i for i, f in enumerate(features) if f in edits.EDITS]
    chosen = choose_pairs(training.ids, training.features, rows, known, per_feature, seed)
    if len(chosen) == 0:
        return None
    target = list(at_training.plain)[-1]
    tick = progress or (lambda *_: None)
    gone = list(_activations(classifier, chosen, off, target, spec, tick))
    made = [i for i, row in enumerate(gone) if row is not None]
    if not made:
        return None
    lesion, feature = chosen[made].T
    return Directions.fit(
        features,
        at_training.plain,
        {tap: values[lesion] for tap, values in at_training.plain.items()},
        {target: np.stack([row for row in gone if row is not None])},
        feature,
        origin=origin,
    )


def choose_pairs(
    ids: Sequence[str],
    labels: NDArray[np.floating],
    rows: NDArray[np.int64],
    features: Sequence[int],
    count: int,
    seed: int,
) -> NDArray[np.int64]:
    """Up to `count` lesions a feature on which it is present, drawn at random: [k, 2], row and
    feature. labels: [n, F]. rows: lesions to draw from. Their order does not matter.
    """
    ordered = sorted((int(r) for r in rows), key=lambda r: ids[r])
    chosen: list[tuple[int, int]] = []
    for f in features:
        there = [r for r in ordered if labels[r, f] == 1]
        drawn = np.random.default_rng([seed, f]).permutation(len(there))[:count]
        chosen += [(there[i], f) for i in sorted(drawn.tolist())]
    return np.array(chosen, dtype=np.int64).reshape(-1, 2)


def _activations(
    classifier: Path,
    pairs: NDArray[np.int64],
    off: Off,
    target: str,
    spec: Preprocessing,
    progress: Callable[[int, int], None],
) -> Iterator[NDArray[np.float32] | None]:
    session = open_session(classifier)

    def one(pair: NDArray[np.int64]) -> NDArray[np.float32] | None:
        base = off(int(pair[0]), int(pair[1]))
        if base is None:
            return None
        return np.asarray(session.run([target], {"x": centre(base, spec)[None]})[0][0])

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for i, row in enumerate(pool.map(one, pairs)):
            yield row
            progress(i + 1, len(pairs))


def _renders(
    phantom: Phantom, training: SplitArrays, vocabulary: Vocabulary, spec: Preprocessing
) -> Off:
    phases, features = list(vocabulary.phase_ids), vocabulary.feature_ids

    def off(row: int, feature: int) -> NDArray[np.float32]:
        lesion = draw(phantom.seed, phantom.index[training.ids[row]])
        seen = render(lesion.without(features[feature]))
        base = normalise(extract(Study.make(seen.volumes, seen.boxes, phases), spec), spec)
        # What the cohort took away from the phantom stays away.
        lost = [p for p, plane in enumerate(training.bases[row]) if not plane.any()]
        return without(base, lost, spec) if lost else base

    return off


def _edits(training: SplitArrays, vocabulary: Vocabulary, spec: Preprocessing) -> Off:
    phases, features = tuple(vocabulary.phase_ids), vocabulary.feature_ids

    def off(row: int, feature: int) -> NDArray[np.float32] | None:
        base = training.bases[row]
        gone = edits.remove(features[feature], base, training.sizes_mm[row], spec, phases)
        # Untouched: a phase that the edit needs is missing. That says nothing of the feature.
        return None if np.array_equal(gone, base) else gone

    return off
