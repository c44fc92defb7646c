"""Named sets of everything that a training may vary, kept whole in training.json."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict, Field

from models.cnn.architecture import Architecture, Optimisation
from models.errors import InputError
from models.passes import PassRecipe
from models.voi import Preprocessing


class Profile(BaseModel):
    """One training's parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: Architecture = Architecture()
    optimisation: Optimisation = Optimisation()
    preprocessing: Preprocessing = Preprocessing()
    recipe: PassRecipe = PassRecipe()
    passes: int = Field(25, ge=1, description="Stochastic passes of a lesion with labels.")
    reference_passes: int = Field(8, ge=1, description="The same of an unlabelled one.")
    labelled: int = Field(10, ge=2, description="Lesions with a feature to label, per feature.")
    probe_taps: tuple[tuple[str, ...], ...] = Field(
        (("fc",), ("fc", "conv4"), ("fc", "conv3", "conv4")),
        description="Choices for the probes' input; validation decides.",
    )
    ood_quantile: float = Field(0.99, gt=0, lt=1, description="Share of validation kept inside.")
    bootstraps: int = Field(1000, ge=50, description="Resamplings behind a 95 % interval.")

    def digest(self, *more: str) -> str:
        """Hash of the fields and what else decides a result: equal digests may be resumed."""
        text = json.dumps([self.model_dump(mode="json"), *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


PROFILES = {
    p.name: p
    for p in (
        Profile(
            name="demo",
            architecture=Architecture(channels=(16, 32, 64, 96)),
            optimisation=Optimisation(epochs=30, patience=12),
            bootstraps=500,
        ),
        Profile(
            name="default",
            optimisation=Optimisation(epochs=120, patience=30, learning_rate=2e-3),
            reference_passes=25,
        ),
    )
}


def profile(name: str, *, epochs: int | None = None) -> Profile:
    """The profile of this name, with another number of epochs where given. Raises InputError."""
    if name not in PROFILES:
        raise InputError(
            "no such profile",
            code="unknown_profile",
            field="profile",
            found=name,
            expected=", ".join(PROFILES),
        )
    chosen = PROFILES[name]
    if epochs is None:
        return chosen
    if epochs < 1:
        raise InputError("too few", field="epochs", found=str(epochs), expected="at least 1")
    optimisation = chosen.optimisation.model_copy(update={"epochs": epochs})
    return chosen.model_copy(update={"optimisation": optimisation})
