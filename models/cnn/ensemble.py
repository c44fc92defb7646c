"""Several networks of different seeds as one classifier, exported as one graph.

Logits are the mean of the members' logits (so the scores are the normalised geometric mean of
theirs); taps and maps are the members' side by side. One file then serves all of them, and
gradients and probes see every member.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from models.cnn.classifier import Classifier


class Ensemble(Classifier):
    """Of at least two members with the same taps, phases and classes."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ValueError("an ensemble needs at least two members")
        first = members[0]
        for other in members[1:]:
            if (other.taps, other.phases, other.classes) != (
                first.taps,
                first.phases,
                first.classes,
            ):
                raise ValueError("the members differ in taps, phases or classes")
        self.members = nn.ModuleList(members)
        self.phases, self.classes = first.phases, first.classes

    @property
    def first(self) -> Classifier:
        member = self.members[0]
        assert isinstance(member, Classifier)
        return member

    @property
    def name(self) -> str:
        return f"{self.first.name}-x{len(self.members)}"

    @property
    def taps(self) -> dict[str, int]:
        return {name: length * len(self.members) for name, length in self.first.taps.items()}

    @property
    def map_taps(self) -> list[str]:
        return self.first.map_taps

    def stage(self, index: int, h: Tensor) -> Tensor:
        parts = [h] * len(self.members) if index == 0 else self._parts(index - 1, h)
        pairs = zip(self.members, parts, strict=True)
        return torch.cat([m.stage(index, part) for m, part in pairs], dim=1)  # type: ignore[operator]

    def head(self, h: Tensor) -> Tensor:
        pairs = zip(self.members, self._parts(len(self.taps) - 1, h), strict=True)
        return torch.stack([m.head(part) for m, part in pairs]).mean(dim=0)  # type: ignore[operator]

    def _parts(self, index: int, h: Tensor) -> list[Tensor]:
        """Each member's share of the value of tap number `index`."""
        return list(h.split(list(self.first.taps.values())[index], dim=1))

    def folded(self) -> Ensemble:
        copy = deepcopy(self).eval()
        copy.members = nn.ModuleList(m.folded() for m in self.members)  # type: ignore[operator,union-attr]
        return copy.requires_grad_(False)
