"""What a probe reads of a lesion, and in which order: pooled taps, then image measurements.

    [ tap 1 | tap 2 | ... | measurements ]

The taps are activations of the network, averaged over stochastic passes; the measurements
(models.imaging) come from the image alone, and no gradient of the network runs through them. So
the taps stand first, and what weighs features by the network takes `vector[..., :tap_length]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError

MEASUREMENTS = "measurements"  # name of the last group


@dataclass(frozen=True)
class Evidence:
    """Layout of the joined vector.

    taps: names in order. widths: their lengths. measurements: names of the image measurements at
    the end; none: the probes read taps alone.
    """

    taps: tuple[str, ...]
    widths: tuple[int, ...]
    measurements: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.taps) != len(self.widths):
            raise ValueError("evidence: one width a tap")

    @classmethod
    def of(
        cls, taps: Sequence[str], lengths: Mapping[str, int], measurements: Sequence[str] = ()
    ) -> Evidence:
        """taps: those that are read. lengths: tap -> length, of all that the network has."""
        return cls(tuple(taps), tuple(lengths[t] for t in taps), tuple(measurements))

    @property
    def tap_length(self) -> int:
        """Length of the part that the network computes."""
        return sum(self.widths)

    @property
    def length(self) -> int:
        """D, the length of the joined vector."""
        return self.tap_length + len(self.measurements)

    @property
    def slices(self) -> dict[str, slice]:
        """Group -> its place in the vector: taps in order, then 'measurements' if there are any."""
        found, start = {}, 0
        for tap, width in zip(self.taps, self.widths, strict=True):
            found[tap] = slice(start, start + width)
            start += width
        if self.measurements:
            found[MEASUREMENTS] = slice(start, self.length)
        return found

    @property
    def names(self) -> list[str]:
        """A name for each number: 'conv4[17]', 'washout_ratio'."""
        units = [
            f"{tap}[{i}]"
            for tap, width in zip(self.taps, self.widths, strict=True)
            for i in range(width)
        ]
        return [*units, *self.measurements]

    def tap_vector(self, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The taps side by side, [..., tap_length]: activations, or gradients with respect to them.

        values: tap -> [..., D_tap]; others are left aside.
        """
        return np.concatenate([values[t] for t in self.taps], axis=-1)

    def join(
        self, values: Mapping[str, NDArray[Any]], measured: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """[..., length]: activations, and the measurements of the same lesions.

        measured: [m], of one lesion (repeated for each of its passes), or [..., m] as `values`.
        Raises InputError where they are needed and not given, or of another length.
        """
        vector = self.tap_vector(values)
        if not self.measurements:
            return vector
        given = None if measured is None else np.asarray(measured)
        if given is None or given.ndim == 0 or given.shape[-1] != len(self.measurements):
            raise InputError(
                "the probes read other measurements of the image", code="wrong_measurements",
                field=MEASUREMENTS, found="none" if given is None else str(list(given.shape)),
                expected=f"[..., {len(self.measurements)}]",
            )  # fmt: skip
        shape = (*vector.shape[:-1], len(self.measurements))
        return np.concatenate([vector, np.broadcast_to(given, shape)], axis=-1)
