"""Rim, unevenness and centre: what stands out within a layer."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from models.imaging.layers import GRID, Layers, Measurement

Array = NDArray[np.float64]


def rim(lesion: Layers) -> list[Measurement]:
    """How far a rim stands out, how closed, sharp and even it is, by phase."""
    out: list[Measurement] = []
    ridge = np.sort(lesion.ridge, axis=1)
    low, high = (int(q * (ridge.shape[1] - 1)) for q in (0.15, 0.85))
    outer, edge = np.sort(lesion.layer(0.72, 0.9), axis=1), lesion.layer(0.9, 1.02)
    n = outer.shape[1]
    lopsided = outer[:, n // 10] + outer[:, -1 - n // 10] - 2 * outer[:, n // 2]
    mean = lesion.profile.mean(axis=1)
    here = (GRID > 0.85) & (GRID < 1.1)
    inner, beyond = (GRID > 0.6) & (GRID < 0.76), (GRID > 1.15) & (GRID < 1.3)
    stands = mean[:, here].max(axis=1) - 0.5 * (
        mean[:, inner].mean(axis=1) + mean[:, beyond].mean(axis=1)
    )
    steps = np.diff(lesion.profile[:, :, (GRID > 0.78) & (GRID < 1.22)], axis=2)
    gradient = np.sqrt((steps**2).mean(axis=(1, 2)))
    sharp = np.abs(steps.mean(axis=1)).max(axis=1)
    for p, phase in enumerate(lesion.phases):
        row = {
            "ridge": ridge[p].mean(), "ridge_least": ridge[p, low], "ridge_most": ridge[p, high],
            "rim_stands": stands[p], "rim_uneven": outer[p].std(), "rim_lopsided": lopsided[p],
            "edge_uneven": edge[p].std(), "edge_gradient": gradient[p], "edge_sharp": sharp[p],
        }  # fmt: skip
        out += [Measurement(f"{phase}.{k}", float(v), (p,)) for k, v in row.items()]
    return out


def unevenness(lesion: Layers) -> list[Measurement]:
    """Variation within the tissue with its radial profile removed.

    Between two phases, the root of the covariance: noise differs from phase to phase, so what they
    share is structure.
    """
    out: list[Measurement] = []
    tissue, weight = lesion.within
    rest = tissue - tissue.mean(axis=1, keepdims=True)
    rest = (rest * np.sqrt(weight / tissue.shape[1])).reshape(len(tissue), -1)
    shared = rest @ rest.T
    for a, phase in enumerate(lesion.phases):
        out.append(Measurement(f"{phase}.uneven", _root(shared[a, a]), (a,)))
    for a, b in combinations(range(len(lesion.phases)), 2):
        name = f"{lesion.phases[a]}>{lesion.phases[b]}.uneven"
        out.append(Measurement(name, _root(shared[a, b]), (a, b)))
    return out


def centre(lesion: Layers) -> list[Measurement]:
    """A scar: parts of the inner two thirds that are dark early and bright late.

    Of each phase but the last against the rise from it to the last; and the level and rise of the
    darkest eighth.
    """
    if len(lesion.phases) < 2:
        return []
    out: list[Measurement] = []
    inner = GRID < 0.65
    values = lesion.profile[:, :, inner]
    weight = np.tile(GRID[inner] ** 2, values.shape[1])
    weight /= weight.sum()
    flat = values.reshape(len(values), -1)
    flat = flat - (flat @ weight)[:, None]
    last = len(flat) - 1
    for p in range(last):
        against = (flat[p] * (flat[last] - flat[p])) @ weight
        out.append(Measurement(f"centre.{lesion.phases[p]}", -_root(against), (p, last)))
    early = flat[0] + flat[1] if last > 1 else flat[0]
    darkest = np.argpartition(early, len(early) // 8)[: len(early) // 8]
    rise = flat[last] - flat[0]
    ends = (0, 1, last) if last > 1 else (0, last)
    out.append(Measurement("centre.dark_rise", float(rise[darkest].mean()), ends))
    out.append(Measurement("centre.dark", float(early[darkest].mean()), ends))
    return out


def _root(value: float) -> float:
    """Square root that keeps the sign."""
    return float(np.sign(value) * np.sqrt(abs(value)))
