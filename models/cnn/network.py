"""The default classifier: a small 3D CNN with named activation taps.

    conv-BN-ReLU (tap conv1) - pool - conv-BN-ReLU (conv2) - pool - ... - mean over space
    - linear-ReLU (tap fc) [- fc and feature heads side by side (tap concept)] - linear - logits

A convolutional tap is the block's map after its ReLU and before its pooling. Its *pooled* form, the
mean over space, is what probes read.

With feature heads (concept supervision; a concept bottleneck with a bypass, Koh et al. 2020, arXiv
2007.04612) the tap 'concept' is what the class is read from: the units of 'fc', then one logit a
feature, trained on the few lesions whose features are labelled.
"""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.cnn.architecture import Architecture
from models.cnn.classifier import Classifier


class Block(nn.Module):
    """Convolution, batch normalisation (folded away for export), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class LesionNet(Classifier):
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
        self.concepts = (
            nn.Linear(architecture.fc, architecture.concepts) if architecture.concepts else None
        )
        self.logits = nn.Linear(architecture.fc + architecture.concepts, classes)

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def taps(self) -> dict[str, int]:
        a = self.architecture
        taps = dict(zip((*self.map_taps, "fc"), (*a.channels, a.fc), strict=True))
        return taps | ({"concept": a.fc + a.concepts} if a.concepts else {})

    @property
    def map_taps(self) -> list[str]:
        return [f"conv{i + 1}" for i in range(len(self.architecture.channels))]

    def stage(self, index: int, h: Tensor) -> Tensor:
        if 0 < index <= len(self.blocks) and self.architecture.pool[index - 1]:
            h = functional.max_pool3d(h, 2)
        if index < len(self.blocks):
            return cast(Tensor, self.blocks[index](h))
        if index == len(self.blocks):
            return functional.relu(self.fc(h.mean(dim=(2, 3, 4))))
        assert self.concepts is not None
        return torch.cat([h, self.concepts(h)], dim=1)

    def head(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.logits(self.dropout(h)))

    def folded(self) -> LesionNet:
        """A copy in evaluation mode with every BatchNorm folded into its convolution."""
        copy = deepcopy(self).eval()
        for block in copy.blocks:
            assert isinstance(block, Block)
            if isinstance(block.norm, nn.BatchNorm3d):
                block.conv = fuse_conv_bn_eval(block.conv, block.norm)
                block.norm = nn.Identity()
        return copy.requires_grad_(False)
