"""Measurements of a lesion that need no network: enhancement kinetics, rim, texture and form.

They follow radiological definitions: how bright each layer is over parenchyma in each phase, what
changes between phases and where, how far a rim stands out and how even it is, how the tissue varies
within. Their units don't depend on a scanner's gain: signal over that of the same phase's
parenchyma, less 1, and lengths over the lesion's own border. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.imaging.form import form
from models.imaging.kinetics import kinetics
from models.imaging.layers import Layers, Measurement
from models.imaging.texture import centre, rim, unevenness
from models.vocabulary import liver_mri
from models.voi import Preprocessing

_PHASES = tuple(liver_mri().phase_ids)
_PARTS = (kinetics, rim, unevenness, centre, form)


@lru_cache(maxsize=8)
def names(phases: tuple[str, ...] = _PHASES) -> tuple[str, ...]:
    """What `measure` gives for these phases, in its order."""
    blank = np.zeros((len(phases), 8, 8, 8), dtype=np.float32)
    return tuple(m.name for m in _all(blank, np.full(3, 20.0), Preprocessing(), phases))


def measure(
    base: NDArray[np.float32],
    size_mm: NDArray[np.floating] | Sequence[float],
    spec: Preprocessing | None = None,
    phases: Sequence[str] = _PHASES,
) -> NDArray[np.float32]:
    """Base [P, M, M, M] (models.voi.normalise) and the VOI's edges [3] -> [len(names(phases))].

    spec: the path that made the base, by default the default one. A measurement that reads a phase
    that was not acquired (all zero) is zero. Raises InputError for edges that are not positive, or
    another number of phases than the base has.
    """
    if len(base) != len(phases):
        raise InputError(
            "another number of phases",
            field="base",
            found=str(len(base)),
            expected=", ".join(phases),
        )
    found = _all(base, np.asarray(size_mm, dtype=np.float64), spec or Preprocessing(), phases)
    lost = {int(p) for p in np.flatnonzero(~base.reshape(len(base), -1).any(axis=1))}
    values = [0.0 if lost.intersection(m.phases) else m.value for m in found]
    return np.array(values, dtype=np.float32)


def _all(
    base: NDArray[np.float32],
    size_mm: NDArray[np.float64],
    spec: Preprocessing,
    phases: Sequence[str],
) -> list[Measurement]:
    lesion = Layers.of(base, size_mm, spec, tuple(phases))
    return [m for part in _PARTS for m in part(lesion)]


NAMES = names()  # for the default phases
