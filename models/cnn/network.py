"""The default classifier: a small 3D CNN with named activation taps.

    conv-BN-ReLU (tap conv1) - pool - conv-BN-ReLU (conv2) - pool - ... - mean over space
    - linear-ReLU (tap fc) - linear - logits

A convolutional tap is the block's map after its ReLU and before its pooling. Its *pooled* form, the
mean over space, is what probes read.
"""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval


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


class Outputs(NamedTuple):
    """logits [B, C]; taps name -> [B, D]; maps conv tap -> [B, D, x, y, z]."""

    logits: Tensor
    taps: dict[str, Tensor]
    maps: dict[str, Tensor]


class Block(nn.Module):
    """Convolution, batch normalisation (folded away for export), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class LesionNet(nn.Module):
    """Classifier of a lesion tensor [B, P, K, K, K]. K must divide by two for every pooling."""

    def __init__(self, architecture: Architecture, phases: int, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.phases = phases
        self.classes = classes
        widths = [phases, *architecture.channels]
        self.blocks = nn.ModuleList(
            Block(a, b, k)
            for a, b, k in zip(widths[:-1], widths[1:], architecture.kernels, strict=True)
        )
        self.fc = nn.Linear(widths[-1], architecture.fc)
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(architecture.fc, classes)

    def outputs(self, x: Tensor) -> Outputs:
        taps: dict[str, Tensor] = {}
        maps: dict[str, Tensor] = {}
        h = x
        rows = zip(self.architecture.conv_taps, self.blocks, self.architecture.pool, strict=True)
        for name, block, pool in rows:
            h = block(h)
            maps[name] = h
            taps[name] = h.mean(dim=(2, 3, 4))
            if pool:
                h = functional.max_pool3d(h, 2)
        taps["fc"] = functional.relu(self.fc(h.mean(dim=(2, 3, 4))))
        return Outputs(self.head(self.dropout(taps["fc"])), taps, maps)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x).logits

    def folded(self) -> LesionNet:
        """A copy in evaluation mode with every BatchNorm folded into its convolution."""
        copy = deepcopy(self).eval()
        for block in copy.blocks:
            assert isinstance(block, Block)
            if isinstance(block.norm, nn.BatchNorm3d):
                block.conv = fuse_conv_bn_eval(block.conv, block.norm)
                block.norm = nn.Identity()
        return copy.requires_grad_(False)
