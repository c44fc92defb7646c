"""The geometry of kernels that slide: pads, strides, dilations, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.graph.rules.base import Step


@dataclass(frozen=True)
class Window:
    """Explicit an axis: begin and end are the pads of both sides."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @classmethod
    def of(cls, step: Step, kernel: Sequence[int]) -> Window:
        """From a node's attributes; 'auto_pad' is resolved with the fixed spatial shape."""
        a, n = step.attributes, len(kernel)
        stride = tuple(a.get("strides", [1] * n))
        dilation = tuple(a.get("dilations", [1] * n))
        pads = list(a.get("pads", [0] * 2 * n))
        begin, end = pads[:n], pads[n:]
        auto = a.get("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            for i, size in enumerate(step.sizes(step.x, range(2, 2 + n))):
                reach = (kernel[i] - 1) * dilation[i] + 1
                total = max((-(-size // stride[i]) - 1) * stride[i] + reach - size, 0)
                less, more = total // 2, total - total // 2
                begin[i], end[i] = (less, more) if auto == "SAME_UPPER" else (more, less)
        elif auto == "VALID":
            begin, end = [0] * n, [0] * n
        return cls(tuple(kernel), stride, dilation, tuple(begin), tuple(end))

    @property
    def reach(self) -> list[int]:
        """Extent of the dilated kernel, minus one."""
        return [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]

    @property
    def apart(self) -> bool:
        """No element lies in two windows."""
        return all(s > r for s, r in zip(self.stride, self.reach, strict=True))

    @property
    def padded(self) -> bool:
        return any(self.begin) or any(self.end)

    def tiles(self, sizes: Sequence[int]) -> bool:
        """Windows of the kernel's size cover the whole, nothing left over."""
        return all(n % k == 0 for n, k in zip(sizes, self.kernel, strict=True))

    def counts(
        self, before: Sequence[int], after: Sequence[int], with_pads: bool
    ) -> list[NDArray[np.float64]]:
        """Elements that each window averages, an axis each [after]; pads count or do not."""
        found = []
        for i, (size, windows) in enumerate(zip(before, after, strict=True)):
            low, high = (-self.begin[i], size + self.end[i]) if with_pads else (0, size)
            taps = np.arange(self.kernel[i]) * self.dilation[i] - self.begin[i]
            places = np.arange(windows)[:, None] * self.stride[i] + taps
            found.append(((places >= low) & (places < high)).sum(axis=1).astype(np.float64))
        return found

    def transposed(
        self,
        step: Step,
        gradient: str,
        weight: str,
        before: Sequence[int],
        after: Sequence[int],
        group: int = 1,
    ) -> str:
        """ConvTranspose from windows [after] to elements [before]; its pads undo the node's.

        What no window reached (or what lies beyond the end, with ceil_mode) is set by its size.
        """
        t = step.tape
        rest = [
            n + b - ((w - 1) * s + r + 1)
            for n, w, b, s, r in zip(
                before, after, self.begin, self.stride, self.reach, strict=True
            )
        ]
        # The operator itself adds less than a stride; more than that no window can leave over,
        # unless it skips elements.
        more = [max(r, 0) for r in rest]
        own = [min(m, s - 1) for m, s in zip(more, self.stride, strict=True)]
        found = t.add(
            "ConvTranspose",
            gradient,
            weight,
            kernel_shape=list(self.kernel),
            strides=list(self.stride),
            dilations=list(self.dilation),
            pads=[*self.begin, *(max(-r, 0) for r in rest)],
            output_padding=own,
            group=group,
        )
        if more != own:
            pads = [0] * (len(rest) + 4) + [m - o for m, o in zip(more, own, strict=True)]
            found = t.add("Pad", found, t.integers(pads))
        return found
