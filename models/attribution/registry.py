"""Map methods by name: what a bundle, an explanation and an evaluation ask for.

A method is a function of the model, the image and the goals, from the bundle's two graphs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.attribution.cam import grad_cam
from models.attribution.chunked import Tick
from models.attribution.goal import Attribution, Goal, Settings
from models.attribution.gradient import gradient_x_input, smoothgrad
from models.attribution.integrated import integrated_gradients
from models.attribution.occlusion import occlusion
from models.errors import InputError
from models.model import Model


class Method(Protocol):
    """A map for each goal, float32 [P, K, K, K] in units of the target; zero means zero."""

    def __call__(
        self,
        model: Model,
        x: NDArray[np.float32],
        goals: Sequence[Goal],
        settings: Settings = ...,
        tick: Tick | None = ...,
    ) -> list[Attribution]: ...


METHODS: dict[str, Method] = {
    "gradient_x_input": gradient_x_input,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "grad_cam": grad_cam,
    "occlusion": occlusion,
}

# What 'default' means, by kind of target; chosen on validation lesions (docs/maps.md).
DEFAULT = {"class": "integrated_gradients", "feature": "integrated_gradients"}


def method(name: str) -> Method:
    """The method called `name`. Raises InputError, unknown_method."""
    if name not in METHODS:
        raise InputError(
            "no such map method", code="unknown_method", field="map_method", found=name,
            expected="default, " + ", ".join(METHODS),
        )  # fmt: skip
    return METHODS[name]
