"""What a lesion is painted on: its crop of the liver in all phases, and what covers what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.cohort.phantom import kinetics
from models.cohort.phantom.shape import Crop, Field, Mask
from models.cohort.phantom.spec import PHASES, LesionSpec

# Beneath this a feature is hidden by a structure painted over it.
_VISIBLE = 0.004


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

    def tissue(self, texture: Field) -> None:
        """Featureless tissue over the body, homogeneous but for the texture that liver has too."""
        arterial, late = self.spec.base
        level = self.curve(lambda t: kinetics.base_ratio(t, arterial, late))
        for p in PHASES:
            self.image[p] += self.body * (self.liver[p] * level[p] * texture - self.image[p])

    def replace(
        self,
        feature: str,
        cover: dict[str, Field],
        colour: dict[str, float],
        share: float,
        least: float = 0.15,
    ) -> None:
        """Paint a structure: cover phase -> [0, 1], colour phase -> signal, share its opacity.

        Its mask is where the coverage exceeds `least`.
        """
        alpha = {id(a): a * share for a in cover.values()}
        for p in PHASES:
            self.image[p] += alpha[id(cover[p])] * (colour[p] - self.image[p])
        shown = np.minimum.reduce([alpha[id(cover[p])] for p in PHASES]) < 1 - _VISIBLE
        for name in self._support:
            self._support[name] = self._support[name] & shown
        self._support[feature] = np.maximum.reduce([cover[p] for p in PHASES]) > least

    def change(self, feature: str, delta: dict[str, Field]) -> None:
        """Change the signal of lesion tissue: phase -> what is added where coverage is 1."""
        for p in PHASES:
            if np.any(delta[p]):
                self.image[p] += self.body * delta[p]
        # An ill-defined border fades over millimetres: its outer part belongs to the change.
        self._support[feature] = self.body > 0

    def mark(self, feature: str, mask: Mask) -> None:
        """Set a feature's mask where another layer does the painting."""
        self._support[feature] = mask

    def masks(self) -> dict[str, Mask]:
        """'lesion' and each feature that is on -> bool on the crop."""
        return {"lesion": self.body > 0.5, **{f: self._support[f] for f in self.spec.features}}
