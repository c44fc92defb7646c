"""An output as it is sent: numbers in a datatype, or the best classes of each row in words.

Classes are strings 'value:index:label'; source: github.com/triton-inference-server/server,
docs/protocol/extension_classification.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.inference.oip_tensors import CodecError, narrowed

LABELLED = ("scores", "logits")  # outputs with one number a class


@dataclass(frozen=True)
class Given:
    """datatype, shape and content. raw: the bytes as an array; texts: in place of numbers."""

    datatype: str
    shape: tuple[int, ...]
    raw: NDArray[Any]
    texts: tuple[str, ...] | None = None

    def listed(self) -> list[Any]:
        """As JSON has it, flat."""
        return self.raw.ravel().tolist() if self.texts is None else list(self.texts)


def given(
    name: str,
    value: NDArray[np.float32],
    *,
    datatype: str = "FP32",
    classes: int = 0,
    labels: Sequence[str] = (),
) -> Given:
    """classes: how many of the best of each row, 0 for the numbers. Raises CodecError."""
    if classes == 0:
        array = narrowed(name, value, datatype)
        return Given(datatype, array.shape, array)
    if value.ndim != 2:
        raise CodecError(
            "classes need one number each",
            field=name,
            found=f"{value.ndim} axes",
            expected="2 axes: rows, classes",
        )
    named = labels if name in LABELLED else ()
    best = np.argsort(-value, axis=1, kind="stable")[:, :classes]
    texts = tuple(
        ":".join([f"{row[i]:f}", str(i), *named[i : i + 1]])
        for row, order in zip(value, best, strict=True)
        for i in order
    )
    packed = b"".join(struct.pack("<I", len(t)) + t for t in (text.encode() for text in texts))
    return Given("BYTES", best.shape, np.frombuffer(packed, np.uint8), texts)


def class_count(name: str, found: object) -> int:
    """The parameter `classification` of an output. Raises CodecError."""
    if type(found) is not int or found < 0:
        raise CodecError(
            "not a number of classes", field=name, found=str(found)[:20], expected="1 or more"
        )
    return found
