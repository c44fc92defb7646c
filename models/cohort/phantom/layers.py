"""The features, one function each, painted over the liver in a fixed order.

Every feature acts on the voxels that it covers and on no others, and has an explicit off state, see
`definitions`. A layer either *replaces* the signal by its coverage (structures) or *changes* the
signal of the lesion tissue under it (kinetics). Coverage above a half is its mask, less what later
structures hide.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.cohort.phantom import kinetics
from models.cohort.phantom.shape import Crop, Field, Mask, directions
from models.cohort.phantom.spec import PHASES, LesionSpec

# Beneath this a feature is hidden by a structure painted over it.
_VISIBLE = 0.02


class Canvas:
    """The lesion's crop in all phases while it is being painted.

    image: phase -> signal over unenhanced parenchyma. masks: feature -> bool. body: coverage of
    lesion tissue. liver: phase -> signal of parenchyma there, without texture.
    """

    def __init__(self, spec: LesionSpec, crop: Crop, background: dict[str, Field]) -> None:
        self.spec, self.crop = spec, crop
        self.image = background
        self.times = spec.scanner.times
        perfusion = spec.scanner.perfusion
        self.liver = {p: perfusion.liver(self.times[p]) for p in PHASES}
        self.core = crop.core()
        self.body = self.core
        self._support: dict[str, Mask] = {}

    def strength(self, feature: str) -> float:
        return self.spec.features.get(feature, 0.0)

    def curve(self, function: Callable[[float], float]) -> dict[str, float]:
        """A curve at this scan's times."""
        return {p: function(t) for p, t in self.times.items()}

    def replace(
        self, feature: str, cover: dict[str, Field], colour: dict[str, float], share: float
    ) -> None:
        """Paint a structure: cover phase -> [0, 1], colour phase -> signal, share its opacity."""
        alpha = {id(a): a * share for a in cover.values()}
        for p in PHASES:
            self.image[p] += alpha[id(cover[p])] * (colour[p] - self.image[p])
        shown = np.minimum.reduce([alpha[id(cover[p])] for p in PHASES]) < 1 - _VISIBLE
        for name in self._support:
            self._support[name] = self._support[name] & shown
        self._support[feature] = np.maximum.reduce([cover[p] for p in PHASES]) > 0.5

    def change(self, feature: str, delta: dict[str, Field]) -> None:
        """Change the signal of lesion tissue: phase -> what is added where coverage is 1."""
        for p in PHASES:
            if np.any(delta[p]):
                self.image[p] += self.body * delta[p]
        # An ill-defined border fades over millimetres: its outer part belongs to the change.
        self._support[feature] = self.body > 0.25

    def mark(self, feature: str, mask: Mask) -> None:
        """Set a feature's mask where another layer does the painting."""
        self._support[feature] = mask

    def masks(self) -> dict[str, Mask]:
        """'lesion' and each feature that is on -> bool on the crop."""
        return {"lesion": self.body > 0.5, **{f: self._support[f] for f in self.spec.features}}


def paint(canvas: Canvas, texture: Field) -> None:
    """Paint the lesion with all features of its spec, deepest first."""
    _growth(canvas)
    _tissue(canvas, texture)
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
        tongues = depth + radius * (0.10 + 0.20 * s) * np.clip(waves, -0.4, 1.2)
        width = crop.edge + radius * (0.08 + 0.18 * s)
        c.body = np.clip(tongues / width + 0.5, 0, 1)
        c.mark("infiltrative_growth", np.abs(c.body - c.core) > 0.12)
    if s := c.strength("nodular_growth"):
        rng = crop.rng("nodular_growth")
        near = np.full(crop.rho.shape, -np.inf, np.float32)
        for i, way in enumerate(directions(rng, 7)):
            # Most nodules are fused with the lesion, every third one lies apart as a satellite.
            apart = i % 3 == 2
            place = crop.point(way, rng.uniform(1.22, 1.32) if apart else rng.uniform(0.90, 1.0))
            size = radius * np.float32(
                (rng.uniform(0.13, 0.18) if apart else rng.uniform(0.30, 0.40))
                * (0.72 + 0.28 * float(s))
            )
            np.maximum(near, size - crop.distance(place), out=near)
        nodules = crop.inside(near)
        c.mark("nodular_growth", nodules - c.body > 0.25)
        c.body = np.maximum(c.body, nodules)


def _tissue(c: Canvas, texture: Field) -> None:
    """Featureless lesion tissue, homogeneous but for the noise-like texture that liver has too."""
    arterial, late = c.spec.base
    level = c.curve(lambda t: kinetics.base_ratio(t, arterial, late))
    for p in PHASES:
        c.image[p] += c.body * (c.liver[p] * level[p] * texture - c.image[p])


def _heterogeneous(c: Canvas, s: float) -> None:
    rng = c.crop.rng("heterogeneous")
    mosaic = np.tanh(2.2 * c.crop.waves(rng, 0.75 * c.crop.radius, 9))
    size = [(0.07 + 0.17 * s) * float(v) for v in rng.uniform(0.75, 1.25, 3)]
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
    rng = c.crop.rng("central_scar")
    near = np.full(c.crop.rho.shape, -np.inf, np.float32)
    wide = max(1.5, 0.13 * c.crop.radius)
    for way in directions(rng, int(rng.integers(4, 7))):
        away, along = c.crop.segment(c.crop.point(way, rng.uniform(0.55, 0.80)))
        np.maximum(near, wide * (1.25 - 0.75 * along) - away, out=near)
    cover = c.crop.inside(near)
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
    c.replace(feature, dict.fromkeys(PHASES, cover), colour, share)


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
