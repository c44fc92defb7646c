"""What fixes the network's shape and its training: plain data, readable without torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Architecture(BaseModel):
    """Hyper-parameters that fix the network's shape; kept in training.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "lesionnet-s"
    channels: tuple[int, ...] = Field((24, 48, 64, 96), description="Output channels per block.")
    kernels: tuple[int, ...] = Field((3, 3, 3, 3), description="Odd kernel edge per block.")
    pool: tuple[bool, ...] = Field(
        (True, True, True, False), description="Halve the map after the block (max over 2x2x2)."
    )
    fc: int = Field(80, description="Units of the last hidden layer, the tap 'fc'.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Before the logits, in training only.")

    @model_validator(mode="after")
    def _check(self) -> Architecture:
        if not len(self.channels) == len(self.kernels) == len(self.pool):
            raise ValueError("channels, kernels and pool need one entry a block")
        if any(k % 2 == 0 for k in self.kernels):
            raise ValueError("kernels must be odd")
        return self

    @property
    def conv_taps(self) -> list[str]:
        return [f"conv{i + 1}" for i in range(len(self.channels))]

    @property
    def taps(self) -> dict[str, int]:
        """Pooled tap -> length, in the network's order."""
        return {**dict(zip(self.conv_taps, self.channels, strict=True)), "fc": self.fc}


class Optimisation(BaseModel):
    """How the weights are found; kept in training.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(40, ge=1)
    batch: int = Field(32, ge=2)
    learning_rate: float = Field(3e-3, gt=0, description="Peak; cosine decay after a warm-up.")
    warm_up: float = Field(0.1, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.02, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    patience: int = Field(12, ge=1, description="Epochs without a better validation loss.")
