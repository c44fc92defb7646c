"""Shapes and types of a graph's values: the batch unknown, everything else fixed."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
from onnx import shape_inference

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Known:
    """shapes: value -> dimensions, None where one follows the batch; values of unknown rank are
    left out. types: value -> ONNX element type.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)


def infer(model: onnx.ModelProto) -> Known:
    """What follows from the graph alone, without running it."""
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    known = Known()
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = value.type.tensor_type
        known.types[value.name] = kind.elem_type
        if kind.HasField("shape"):
            known.shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim
            )
    return known
