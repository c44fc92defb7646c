"""The features, one function each, painted over the liver in a fixed order.

Every feature acts on the voxels that it covers and on no others, and has an explicit off state, see
`definitions`. A layer either *replaces* the signal by its coverage (structures) or *changes* the
signal of the lesion tissue under it (kinetics). Coverage above a half is its mask, less what later
structures hide.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from models.cohort.phantom import geometry, kinetics
from models.cohort.phantom.abscess import paint_abscess
from models.cohort.phantom.canvas import Canvas
from models.cohort.phantom.geometry import directions
from models.cohort.phantom.shape import Field
from models.cohort.phantom.spec import PHASES


def paint(canvas: Canvas, texture: Field) -> None:
    """Paint the lesion with all features of its spec, deepest first."""
    if canvas.spec.class_id == "abscess":
        paint_abscess(canvas, texture)
        return
    _growth(canvas)
    canvas.tissue(texture)
    for feature, layer in _LAYERS.items():
        strength = canvas.strength(feature)
        if strength:
            layer(canvas, strength)


def _growth(c: Canvas) -> None:
    """Extent of lesion tissue: the core shape, infiltrating tongues, nodules that bulge out."""
    crop, radius = c.crop, c.crop.radius
    depth = (1 - crop.rho) * radius
    if s := c.strength("infiltrative_growth"):
        waves = crop.waves(crop.rng("infiltrative_growth"), 0.75 * crop.radius)
        tongues = depth + radius * geometry.tongues(s) * np.clip(waves, -0.4, geometry.TONGUE_PEAK)
        width = crop.edge + radius * (0.08 + 0.18 * s)
        # Cut at the faint end: what is changed has an edge.
        c.body = np.clip((tongues / width + 0.3) / 0.8, 0, 1)
        c.mark("infiltrative_growth", c.body != c.core)
    if s := c.strength("nodular_growth"):
        rng = crop.rng("nodular_growth")
        near = np.full(crop.rho.shape, -np.inf, np.float32)
        for ball in geometry.nodules(rng, c.spec.form, s):
            away = crop.distance(crop.point(ball.way, ball.rho))
            np.maximum(near, np.float32(ball.radius) - away, out=near)
        # Parenchyma is left in the clefts between the nodules and the rest of the core.
        wide = np.float32(max(1.3 * crop.edge, 0.11 * radius))
        cleft = crop.inside(wide / 2 - np.abs(near + wide / 2)) * np.float32(0.55 + 0.45 * s)
        body = np.maximum(c.body * (1 - cleft * c.core), crop.inside(near))
        c.mark("nodular_growth", body != c.body)
        c.body = body


def _heterogeneous(c: Canvas, s: float) -> None:
    rng = c.crop.rng("heterogeneous")
    size = [(0.11 + 0.19 * s) * float(v) for v in rng.uniform(0.8, 1.2, 3)]
    mosaic = c.crop.cells(rng, 26)
    c.change("heterogeneous", {p: mosaic * (size[i] * c.liver[p]) for i, p in enumerate(PHASES)})


def _peripheral_nodules(c: Canvas, s: float) -> None:
    rng = c.crop.rng("nodular_peripheral_enhancement")
    near = np.full(c.crop.rho.shape, -np.inf, np.float32)
    for way in directions(rng, int(rng.integers(7, 12))):
        size = c.crop.radius * rng.uniform(0.20, 0.30)
        place = c.crop.point(way, rng.uniform(0.80, 0.88))
        np.maximum(near, size - c.crop.distance(place), out=near)
    cover = c.crop.inside(near) * c.core
    blood = c.curve(c.spec.scanner.perfusion.blood)
    c.replace("nodular_peripheral_enhancement", dict.fromkeys(PHASES, cover), blood, 0.5 + 0.5 * s)


def _centripetal_filling(c: Canvas, s: float) -> None:
    waves = c.crop.waves(c.crop.rng("progressive_centripetal_filling"), 0.8 * c.crop.radius)
    reach = c.curve(lambda t: kinetics.front(t) * (0.55 + 0.45 * float(s)))
    from_border = 1 - c.crop.rho
    cover = {
        p: np.clip((reach[p] * (1 + 0.22 * waves) - from_border) / 0.10 + 0.5, 0, 1) * c.core
        for p in PHASES
    }
    blood = c.curve(c.spec.scanner.perfusion.blood)
    c.replace("progressive_centripetal_filling", cover, blood, 1.0)


def _arterial_hyperenhancement(c: Canvas, s: float) -> None:
    bolus = c.curve(kinetics.arterial_bolus)
    c.change("arterial_hyperenhancement", _flat({p: (0.25 + 0.45 * s) * bolus[p] for p in PHASES}))


def _progressive_enhancement(c: Canvas, s: float) -> None:
    rise = c.curve(kinetics.slow_rise)
    # Towards parenchyma, not beyond: beyond is delayed hyperenhancement.
    gap = (0.45 + 0.55 * s) * max(1.03 - c.spec.base[1], 0.10)
    c.change("progressive_enhancement", _flat({p: gap * rise[p] * c.liver[p] for p in PHASES}))


def _isointense_late(c: Canvas, s: float) -> None:
    late = c.curve(kinetics.late)
    c.change(
        "isointense_late",
        {p: (0.55 + 0.45 * s) * late[p] * (c.liver[p] - c.image[p]) for p in PHASES},
    )


def _washout(c: Canvas, s: float) -> None:
    lost = c.curve(kinetics.loss)
    over = max(c.spec.base[1] - (0.84 - 0.20 * s), 0.10)
    c.change("washout", _flat({p: -over * lost[p] * c.liver[p] for p in PHASES}))


def _delayed_hyperenhancement(c: Canvas, s: float) -> None:
    rise = c.curve(kinetics.late_rise)
    under = {p: (1.20 + 0.20 * s) * c.liver[p] - c.image[p] for p in PHASES}
    c.change(
        "delayed_hyperenhancement",
        {p: rise[p] * np.maximum(0.85 * under[p], 0.06 * c.liver[p]) for p in PHASES},
    )


def _hypoenhancing_core(c: Canvas, s: float) -> None:
    waves = c.crop.waves(c.crop.rng("hypoenhancing_core"), 1.1 * c.crop.radius, 4)
    border = c.spec.form.core_radius * (1 + 0.07 * waves)
    cover = c.crop.inside((border - c.crop.rho) * c.crop.radius)
    fluid = c.curve(c.spec.scanner.perfusion.fluid)
    c.replace("hypoenhancing_core", dict.fromkeys(PHASES, cover), fluid, 0.5 + 0.5 * s)


def _central_scar(c: Canvas, s: float) -> None:
    """A hub with fibrous septa that radiate from it: a star in every cut across its axis."""
    rng = c.crop.rng("central_scar")
    radius = c.crop.radius
    across, up, axis = _frame(rng)
    x, y, h = (c.crop.linear(row) for row in (across, up, axis))
    # Septa shorten towards both ends of the axis.
    left = np.sqrt(np.clip(1 - (h / np.float32(0.62 * radius)) ** 2, 0, 1), dtype=np.float32)
    wide = np.float32(max(1.5, 0.10 * radius))
    away = c.crop.distance(np.zeros(3))
    near = np.float32(0.19 * radius) - away
    count = int(rng.integers(5, 7))
    for k in range(count):
        turn = 2 * np.pi * (k + rng.uniform(-0.22, 0.22)) / count
        twist = np.float32(rng.uniform(-0.4, 0.4) / radius)
        angle = np.float32(turn) + twist * h
        ahead = x * np.cos(angle) + y * np.sin(angle)
        aside = np.abs(y * np.cos(angle) - x * np.sin(angle))
        reach = left * np.float32(rng.uniform(0.50, 0.80) * radius)
        along = np.clip(ahead / np.maximum(reach, np.float32(0.1)), 0, 1)
        over = np.maximum(ahead - reach, 0) + np.maximum(-ahead, 0)
        thick = wide * np.float32(rng.uniform(0.8, 1.15))
        sheet = thick * (1.15 - 0.55 * along) - np.hypot(aside, over)
        np.maximum(near, np.where(left > 0.2, sheet, -1), out=near)
    cover = c.crop.inside(near) * c.core
    level = {"arterial": 0.78, "portal_venous": 0.72, "delayed": 1.12}
    c.replace(
        "central_scar",
        dict.fromkeys(PHASES, cover),
        {p: level[p] * c.liver[p] for p in PHASES},
        0.5 + 0.5 * s,
    )


def _enhancing_capsule(c: Canvas, s: float) -> None:
    thick = float(c.crop.rng("enhancing_capsule").uniform(2.2, 3.2))
    thick = min(thick, 0.22 * c.crop.radius)
    level = {"arterial": 1.08, "portal_venous": 1.32, "delayed": 1.42}
    _rim(c, "enhancing_capsule", thick, 0.5 + 0.5 * s, level)


def _thin_walled(c: Canvas, s: float) -> None:
    thick = float(c.crop.rng("thin_walled").uniform(1.2, 1.8))
    level = {"arterial": 1.60, "portal_venous": 1.35, "delayed": 1.25}
    _rim(c, "thin_walled", thick, 0.55 + 0.45 * s, level)


def _rim(c: Canvas, feature: str, thick: float, share: float, level: dict[str, float]) -> None:
    """A rim just inside the core shape's border, half a voxel of it outside."""
    middle = np.abs((1 - c.crop.rho) * c.crop.radius - (thick - c.crop.edge) / 2)
    cover = c.crop.inside(thick / 2 - middle)
    colour = {p: level[p] * c.liver[p] for p in PHASES}
    # A wall thinner than a voxel may miss the voxels' centres altogether.
    c.replace(feature, dict.fromkeys(PHASES, cover), colour, share, least=0.01)


def _frame(rng: np.random.Generator) -> NDArray[np.float64]:
    """Three unit vectors at right angles; the last within about 25 degrees of the slice axis."""
    tilt = Rotation.from_euler("xyz", [*rng.uniform(-0.35, 0.35, 2), rng.uniform(0, 2 * np.pi)])
    return np.asarray(tilt.as_matrix().T)


def _flat(delta: dict[str, float]) -> dict[str, Field]:
    return {p: np.full((1, 1, 1), delta[p], np.float32) for p in PHASES}


_LAYERS: dict[str, Callable[[Canvas, float], None]] = {
    "heterogeneous": _heterogeneous,
    "nodular_peripheral_enhancement": _peripheral_nodules,
    "progressive_centripetal_filling": _centripetal_filling,
    "arterial_hyperenhancement": _arterial_hyperenhancement,
    "progressive_enhancement": _progressive_enhancement,
    "isointense_late": _isointense_late,
    "washout": _washout,
    "delayed_hyperenhancement": _delayed_hyperenhancement,
    "hypoenhancing_core": _hypoenhancing_core,
    "central_scar": _central_scar,
    "enhancing_capsule": _enhancing_capsule,
    "thin_walled": _thin_walled,
}
