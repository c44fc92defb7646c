"""The published classifier (Hamm et al. 2019, part I; Wang et al. 2019, part II).

    24x24x12x3 - 64 filters for each phase (tap conv1) - pool 2x2x2 - conv 128 (conv2)
    - conv 128 (conv3) - pool 2x2x1 - 100 units (fc) - classes

From the papers (doi 10.1007/s00330-019-06205-9 and 10.1007/s00330-019-06214-8): the sizes above,
kernels 3x3x2, ReLU, batch normalisation, dropout, softmax. From the authors' public code
(github.com/clintonjwang/voi-classifier, `get_best_hyperparams` and `build_cnn`): the order of the
layers, 'same' padding in the first convolution and none in the others, dropout 0.1, each phase
with filters of its own. Ours: the input is the common 24x24x24 view, and neighbouring slices are
averaged in pairs to give the published 12; dropout stands behind a pooling, not before it, where
drawing it costs a third of a training step.
"""

from __future__ import annotations

from copy import deepcopy
from typing import cast

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.cnn.architecture import Architecture
from models.cnn.classifier import Classifier

KERNEL = (3, 3, 2)


class Wang2019(Classifier):
    """Classifier of [B, P, K, K, K], K divisible by four and at least 16."""

    def __init__(self, architecture: Architecture, phases: int, classes: int, edge: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.phases, self.classes = phases, classes
        each, second, third = architecture.channels
        stem = each * phases
        self.conv1 = nn.Conv3d(phases, stem, KERNEL, groups=phases)
        self.norm1 = nn.BatchNorm3d(stem)
        self.conv2 = nn.Conv3d(stem, second, KERNEL)
        self.norm2: nn.Module = nn.BatchNorm3d(second)
        self.conv3 = nn.Conv3d(second, third, KERNEL)
        self.norm3: nn.Module = nn.BatchNorm3d(third)
        across, along = (edge // 2 - 4) // 2, edge // 4 - 2
        self.fc = nn.Linear(third * across * across * along, architecture.fc)
        self.norm_fc: nn.Module = nn.BatchNorm1d(architecture.fc)
        self.logits = nn.Linear(architecture.fc, classes)
        self.drop = nn.Dropout(architecture.dropout)

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def taps(self) -> dict[str, int]:
        each, second, third = self.architecture.channels
        return {
            "conv1": each * self.phases,
            "conv2": second,
            "conv3": third,
            "fc": self.architecture.fc,
        }

    @property
    def map_taps(self) -> list[str]:
        return ["conv1", "conv2", "conv3"]

    def stage(self, index: int, h: Tensor) -> Tensor:
        if index == 0:
            h = functional.avg_pool3d(h, (1, 1, 2))
            # 'same' for a kernel of 3x3x2: one voxel on each side in plane, one behind along z.
            return functional.relu(self.conv1(functional.pad(h, (0, 1, 1, 1, 1, 1))))
        if index == 1:
            h = self.norm1(self.drop(functional.max_pool3d(h, 2)))
            return functional.relu(self.norm2(self.conv2(h)))
        if index == 2:
            return functional.relu(self.norm3(self.conv3(self.drop(h))))
        h = self.drop(functional.max_pool3d(h, (2, 2, 1)))
        return functional.relu(self.norm_fc(self.fc(h.flatten(1))))

    def head(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.logits(self.drop(h)))

    def folded(self) -> Wang2019:
        """norm1 stands behind a pooling and before a convolution, and stays."""
        copy = deepcopy(self).eval()
        for i in (2, 3):
            conv, norm = getattr(copy, f"conv{i}"), getattr(copy, f"norm{i}")
            if isinstance(norm, nn.BatchNorm3d):
                setattr(copy, f"conv{i}", fuse_conv_bn_eval(conv, norm))
                setattr(copy, f"norm{i}", nn.Identity())
        if isinstance(copy.norm_fc, nn.BatchNorm1d):
            copy.fc = fuse_linear_bn_eval(copy.fc, copy.norm_fc)
            copy.norm_fc = nn.Identity()
        return copy.requires_grad_(False)
