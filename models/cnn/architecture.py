"""What fixes the network's shape and its training: plain data, readable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Architecture(BaseModel):
    """Hyper-parameters that fix the network's shape; kept in training.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Literal["lesionnet", "wang2019"] = Field(
        "lesionnet", description="Key in models.cnn.networks; wang2019 fixes kernels and pool."
    )
    name: str = "lesionnet-s"
    channels: tuple[int, ...] = Field((24, 48, 64, 96), description="Output channels per block.")
    kernels: tuple[int, ...] = Field((3, 3, 3, 3), description="Odd kernel edge per block.")
    pool: tuple[bool, ...] = Field(
        (True, True, True, False), description="Halve the map after the block (max over 2x2x2)."
    )
    fc: int = Field(80, description="Units of the last hidden layer, the tap 'fc'.")
    concepts: int = Field(
        0, ge=0, description="Feature heads behind 'fc', in the tap 'concept'; lesionnet only."
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="Before the logits, in training only.")

    @model_validator(mode="after")
    def _check(self) -> Architecture:
        if not len(self.channels) == len(self.kernels) == len(self.pool):
            raise ValueError("channels, kernels and pool need one entry a block")
        if any(k % 2 == 0 for k in self.kernels):
            raise ValueError("kernels must be odd")
        if self.concepts and self.network != "lesionnet":
            raise ValueError("only lesionnet has feature heads")
        return self


class Optimisation(BaseModel):
    """How the weights are found; kept in training.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(
        2000, ge=1, description="Weight updates in all; epochs follow from the cohort's size."
    )
    min_epochs: int = Field(40, ge=1, description="At least so many, however large the cohort.")
    epochs: int | None = Field(None, ge=1, description="In place of what the steps come to.")
    batch: int = Field(32, ge=2)
    method: Literal["adamw", "adam"] = "adamw"
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="Of the learning rate: half a cosine after a warm-up, or none."
    )
    learning_rate: float = Field(3e-3, gt=0, description="The highest.")
    warm_up: float = Field(0.1, ge=0, lt=1, description="Share of the steps, with a cosine.")
    weight_decay: float = Field(0.02, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay a step of the running average of the weights that is validated and "
        "kept (Polyak & Juditsky 1992); 0: the last weights themselves.",
    )
    patience: float = Field(
        0.3,
        gt=0,
        description="Stop after this share of the epochs without a better validation loss.",
    )

    def epochs_for(self, steps_an_epoch: int) -> int:
        """Epochs of a training with so many batches an epoch."""
        return self.epochs or max(self.min_epochs, round(self.steps / steps_an_epoch))

    def patience_for(self, epochs: int) -> int:
        """Epochs without a better validation loss before a training of `epochs` stops."""
        return max(1, round(self.patience * epochs))
