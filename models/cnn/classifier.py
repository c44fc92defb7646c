"""What training and export ask of a network, whatever its architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

from torch import Tensor, nn


class Outputs(NamedTuple):
    """logits [B, C]; taps name -> [B, D]; maps tap -> [B, D, x, y, z], for taps that have one."""

    logits: Tensor
    taps: dict[str, Tensor]
    maps: dict[str, Tensor]


class Classifier(nn.Module, ABC):
    """A classifier of lesion tensors [B, phases, K, K, K] as a chain of taps.

    Each tap's value follows from the one before it alone, so that the gradient at a tap is the
    whole of its influence. A tap whose value is a map [B, D, x, y, z] is pooled by the mean over
    space; any other is a vector [B, D].
    """

    phases: int
    classes: int

    @property
    @abstractmethod
    def name(self) -> str:
        """What records and cards call it."""

    @property
    @abstractmethod
    def taps(self) -> dict[str, int]:
        """Pooled tap -> length, in network order."""

    @property
    @abstractmethod
    def map_taps(self) -> list[str]:
        """The taps that are means of a map, in network order: the first ones."""

    @abstractmethod
    def stage(self, index: int, h: Tensor) -> Tensor:
        """Value of tap number `index` from the value of the one before (of x, for the first)."""

    @abstractmethod
    def head(self, h: Tensor) -> Tensor:
        """Logits [B, C] from the value of the last tap."""

    @abstractmethod
    def folded(self) -> Self:
        """A copy for inference: evaluation mode, normalisations folded where that is exact."""

    def outputs(self, x: Tensor) -> Outputs:
        """Everything that classifier.onnx gives, from one pass."""
        taps: dict[str, Tensor] = {}
        maps: dict[str, Tensor] = {}
        with_map = set(self.map_taps)
        h = x
        for index, name in enumerate(self.taps):
            h = self.stage(index, h)
            if name in with_map:
                maps[name] = h
            taps[name] = h.mean(dim=(2, 3, 4)) if name in with_map else h
        return Outputs(self.head(h), taps, maps)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for index in range(len(self.taps)):
            h = self.stage(index, h)
        return self.head(h)
