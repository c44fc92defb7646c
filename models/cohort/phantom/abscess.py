"""A class that is never trained on: a pyogenic abscess, for out-of-distribution tests.

    parenchyma stirred up around it    brighter in the arterial phase alone, a patchy halo
    outer layer                        oedema: dark early, like parenchyma late ('double target')
    wall                               thick, irregular, enhancing from the first phase on
    cavity                             pus: takes up nothing; one chamber with septa, or a cluster

It has none of the vocabulary's features: it looks like nothing that the network was taught.
"""

from __future__ import annotations

import numpy as np

from models.cohort.phantom import kinetics
from models.cohort.phantom.canvas import Canvas
from models.cohort.phantom.geometry import direction, directions
from models.cohort.phantom.shape import Field
from models.cohort.phantom.spec import OUTSIDE, PHASES


def paint_abscess(c: Canvas, texture: Field) -> None:
    """Paint the whole lesion; its 'lesion' mask is the core shape, halo excluded."""
    rng = c.spec.rng(OUTSIDE)
    _halo(c, rng)
    c.tissue(texture)
    oedema = dict(
        zip(PHASES, (rng.uniform(0.80, 0.90), rng.uniform(0.86, 0.95), 1.04), strict=True)
    )
    wall = dict(zip(PHASES, rng.uniform((1.30, 1.22, 1.15), (1.60, 1.45, 1.35)), strict=True))
    inner, thick = rng.uniform(0.50, 0.68), rng.uniform(0.16, 0.26)
    uneven = c.crop.waves(rng, 0.6 * c.crop.radius, 8)
    bulge = c.crop.waves(rng, 1.0 * c.crop.radius, 5)
    outer = inner + thick * (1 + 0.30 * uneven) + 0.05 * bulge
    wall_cover = c.crop.inside((outer - c.crop.rho) * c.crop.radius) * c.core
    _paint(c, "oedema", c.core, oedema)
    _paint(c, "wall", wall_cover, wall)
    border = inner + 0.05 * bulge
    cavity = c.crop.inside((border - c.crop.rho) * c.crop.radius)
    if rng.random() < 0.5:
        cavity = cavity * _chambers(c, rng, inner)
    else:
        cavity = cavity * (1 - _septa(c, rng))
    pus = float(rng.uniform(0.50, 0.72))
    c.replace("cavity", dict.fromkeys(PHASES, cavity), dict.fromkeys(PHASES, pus), 1.0)


def _paint(c: Canvas, name: str, cover: Field, ratio: dict[str, float]) -> None:
    colour = {p: float(ratio[p]) * c.liver[p] for p in PHASES}
    c.replace(name, dict.fromkeys(PHASES, cover), colour, 0.95)


def _halo(c: Canvas, rng: np.random.Generator) -> None:
    """Transient arterial enhancement of the parenchyma around, patchy, to 1.9 radii."""
    patchy = np.clip(0.7 + 0.5 * c.crop.waves(rng, 1.6 * c.crop.radius, 4), 0, 1)
    fade = np.clip((1.85 - c.crop.rho) / 0.55, 0, 1)
    gain = float(rng.uniform(0.28, 0.50))
    for p, bolus in c.curve(kinetics.arterial_bolus).items():
        c.image[p] += fade * patchy * np.float32(gain * bolus)


def _chambers(c: Canvas, rng: np.random.Generator, inner: float) -> Field:
    """Coverage of a cluster of four to seven small cavities."""
    near = np.float32(0.40 * inner * c.crop.radius) - c.crop.distance(np.zeros(3))
    for way in directions(rng, int(rng.integers(5, 9))):
        size = np.float32(c.crop.radius * inner * rng.uniform(0.34, 0.46))
        away = c.crop.distance(c.crop.point(way, inner * rng.uniform(0.62, 0.82)))
        np.maximum(near, size - away, out=near)
    return c.crop.inside(near)


def _septa(c: Canvas, rng: np.random.Generator) -> Field:
    """Coverage of one to three enhancing sheets through the cavity."""
    total = np.zeros(c.crop.rho.shape, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        off = float(rng.uniform(-0.3, 0.3)) * c.crop.radius
        bend = 0.08 * c.crop.radius * c.crop.waves(rng, 1.5 * c.crop.radius, 3)
        away = np.abs(c.crop.linear(direction(rng)) - off + bend)
        np.maximum(total, c.crop.inside(np.float32(rng.uniform(0.9, 1.5)) - away), out=total)
    return total
