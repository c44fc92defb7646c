"""Named sets of everything that a training may vary, kept whole in training.json."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.cnn.architecture import Architecture, Optimisation
from models.errors import InputError
from models.passes import PassRecipe
from models.voi import Preprocessing

# What services.training.hardware takes; here, where torch is not needed to name them.
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


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
        (),
        description="Choices for the probes' input; validation decides. Empty: the last tap, and "
        "with it the one or two before.",
    )
    concepts: float = Field(
        0.0,
        ge=0,
        description="Weight of the feature heads' loss beside the class's (concept supervision on "
        "the labelled lesions); 0: no heads.",
    )
    phase_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of training views that lose a late phase."
    )
    pairs: int = Field(
        60, ge=0, description="Lesions with and without a feature, per feature, for its relevance."
    )
    trust: bool = Field(True, description="Measure how far maps can be trusted.")
    members: int = Field(1, ge=1, description="Networks of different seeds in one classifier.")
    ood_quantile: float = Field(0.99, gt=0, lt=1, description="Share of validation kept inside.")
    bootstraps: int = Field(1000, ge=50, description="Resamplings behind a 95 % interval.")

    def tap_choices(self, taps: list[str]) -> list[tuple[str, ...]]:
        """The choices for a network with these taps, the smallest first."""
        if self.probe_taps:
            return list(self.probe_taps)
        # The labels that calibrate probes taught the heads of 'concept', so probes don't read them.
        taps = [tap for tap in taps if tap != "concept"]
        return [(taps[-1], *taps[-1 - k : -1]) for k in range(min(3, len(taps)))]

    def optional_phases(self, phases: list[str]) -> list[str]:
        """The phases that a network trained so can do without: all but the first, or none."""
        return phases[1:] if self.phase_dropout else []

    def digest(self, *more: str) -> str:
        """Hash of the fields and what else decides a result: equal digests may be resumed."""
        text = json.dumps([self.model_dump(mode="json"), *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


CONCEPT_WEIGHT = 1.0  # of feature heads, where a training asks for them

PROFILES = {
    p.name: p
    for p in (
        Profile(
            name="demo",
            architecture=Architecture(channels=(16, 32, 64, 96)),
            optimisation=Optimisation(steps=220, min_epochs=30),
            pairs=20,
            bootstraps=500,
        ),
        Profile(
            name="default",
            architecture=Architecture(name="lesionnet-m", channels=(16, 48, 96, 128)),
            optimisation=Optimisation(steps=1000, learning_rate=3e-3, average=0.99, patience=0.5),
            reference_passes=25,
        ),
        Profile(
            name="wang2019",
            architecture=Architecture(
                network="wang2019",
                name="wang2019",
                channels=(64, 128, 128),
                kernels=(3, 3, 3),
                pool=(True, False, True),
                fc=100,
                dropout=0.1,
            ),
            optimisation=Optimisation(
                steps=500,
                min_epochs=10,
                batch=30,
                method="adam",
                schedule="constant",
                learning_rate=1e-3,
                weight_decay=0.0,
                label_smoothing=0.0,
                patience=0.5,
            ),
            reference_passes=25,
        ),
    )
}


def profile(
    name: str,
    *,
    epochs: int | None = None,
    members: int | None = None,
    phase_dropout: float | None = None,
    concepts: bool = False,
) -> Profile:
    """The profile of this name, with what is given in place of its own. Raises InputError.

    concepts: with feature heads beside the class.
    """
    if name not in PROFILES:
        raise InputError(
            "no such profile",
            code="unknown_profile",
            field="profile",
            found=name,
            expected=", ".join(PROFILES),
        )
    chosen = PROFILES[name]
    for what, number in (("epochs", epochs), ("members", members)):
        if number is not None and number < 1:
            raise InputError("too few", field=what, found=str(number), expected="at least 1")
    if phase_dropout is not None and not 0 <= phase_dropout < 1:
        raise InputError(
            "no such share",
            field="phase_dropout",
            found=f"{phase_dropout:g}",
            expected="at least 0 and below 1",
        )
    if concepts and chosen.architecture.network != "lesionnet":
        raise InputError(
            "this network has no feature heads",
            field="concepts",
            found=chosen.architecture.network,
            expected="lesionnet",
        )
    given: dict[str, Any] = {
        "members": members,
        "phase_dropout": phase_dropout,
        "concepts": CONCEPT_WEIGHT if concepts else None,
    }
    if epochs is not None:
        given["optimisation"] = chosen.optimisation.model_copy(update={"epochs": epochs})
    return chosen.model_copy(update={k: v for k, v in given.items() if v is not None})
