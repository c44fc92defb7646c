"""Activations of a split, read through the exported graph as serving will read them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.cnn.data import SplitArrays
from models.cnn.export import open_session
from models.passes import PassRecipe, views
from models.voi import Preprocessing, centre

PASS_SEED = 0  # the default seed of an explanation, so that both see the same variations


@dataclass(frozen=True)
class Activations:
    """Of one split, in file order. logits: [n, C], plain view. plain, averaged: tap -> [n, D]:
    the plain centre view, and the mean over the stochastic passes of each lesion. passes: 'logits'
    and the last tap -> each pass of each lesion by itself, n arrays [T, D].
    """

    logits: NDArray[np.float32]
    plain: dict[str, NDArray[np.float32]]
    averaged: dict[str, NDArray[np.float32]]
    passes: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)

    def joined(self, taps: Sequence[str], *, plain: bool = False) -> NDArray[np.float32]:
        """The taps side by side, [n, D], as probes read them."""
        source = self.plain if plain else self.averaged
        return np.concatenate([source[t] for t in taps], axis=1)


def read_activations(
    classifier: Path,
    split: SplitArrays,
    taps: Sequence[str],
    spec: Preprocessing,
    recipe: PassRecipe,
    passes: NDArray[np.int64] | int,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Activations:
    """passes: how many stochastic passes, one number or one for each lesion (0: plain only).

    Every lesion's passes are a batch of their own, so no number depends on its neighbours.
    """
    session = open_session(classifier)
    counts = np.broadcast_to(np.asarray(passes), (len(split),))
    names = ["logits", *taps]

    def one(i: int) -> tuple[list[NDArray], list[NDArray]]:
        base = split.bases[i]
        plain = session.run(names, {"x": centre(base, spec)[None]})
        if counts[i] == 0:
            return plain, plain
        x = views(base, spec, recipe, int(counts[i]), PASS_SEED)
        return plain, session.run(names, {"x": x})

    plain: dict[str, list[NDArray]] = {name: [] for name in names}
    averaged: dict[str, list[NDArray]] = {name: [] for name in names}
    each: dict[str, list[NDArray]] = {name: [] for name in dict.fromkeys((names[0], names[-1]))}
    with ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        for i, (once, many) in enumerate(pool.map(one, range(len(split)))):
            for name, a, b in zip(names, once, many, strict=True):
                plain[name].append(a[0])
                averaged[name].append(b.mean(axis=0, dtype=np.float64).astype(np.float32))
                if name in each:
                    each[name].append(b)
            if progress:
                progress(i + 1, len(split))
    return Activations(
        logits=np.stack(plain["logits"]),
        plain={t: np.stack(plain[t]) for t in taps},
        averaged={t: np.stack(averaged[t]) for t in taps},
        passes=each,
    )
