"""A graph being written: nodes and constants are added at its end, names never clash."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from models.graph.shapes import Known, Shape


class Tape:
    """Appends to a copy of a graph's nodes. Values are known by their names.

    elem_type: of the floating point values that are differentiated, the input's.
    """

    def __init__(self, graph: onnx.GraphProto, known: Known) -> None:
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.shapes, self.types = known.shapes, known.types
        self.elem_type = elem_type = graph.input[0].type.tensor_type.elem_type
        self.dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        self._values: dict[str, NDArray[Any]] = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer
        }
        for node in graph.node:
            if node.op_type == "Constant":
                value = _constant(node)
                if value is not None:
                    self._values[node.output[0]] = value
            elif node.op_type == "Identity" and node.input[0] in self._values:
                self._values[node.output[0]] = self._values[node.input[0]]
        self._made: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self._count = 0
        self.made: list[onnx.TensorProto] = []

    def value(self, name: str) -> NDArray[Any] | None:
        """The array of a constant, or None."""
        return self._values.get(name)

    def shape(self, name: str) -> Shape | None:
        """Known dimensions, or None where not even the rank is known."""
        value = self._values.get(name)
        return tuple(value.shape) if value is not None else self.shapes.get(name)

    def fresh(self, hint: str) -> str:
        self._count += 1
        return f"reverse/{self._count}/{hint}"

    def constant(self, value: Any, dtype: Any = None) -> str:
        """An initializer; equal arrays share one. Floats take the graph's precision."""
        array = np.asarray(value)
        if dtype is not None:
            array = array.astype(dtype)
        elif array.dtype.kind == "f":
            array = array.astype(self.dtype)
        array = np.asarray(array, order="C")
        key = (array.tobytes(), str(array.dtype), array.shape)
        if key not in self._made:
            name = self.fresh("constant")
            self._made[key] = name
            self._values[name] = array
            self.made.append(numpy_helper.from_array(array, name))
        return self._made[key]

    def integers(self, values: Any) -> str:
        return self.constant(np.asarray(values, dtype=np.int64))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Append a node; the name of its first output."""
        return self.add_many(op, *inputs, outputs=outputs, **attributes)[0]

    def add_many(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        names = [self.fresh(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def target(self, like: str) -> str:
        """The shape of `like` at run time, int64 [rank]; a constant where only one is unknown."""
        return self.add("Shape", like)

    def reshape(self, value: str, like: str) -> str:
        """`value` in the shape of `like`."""
        shape = self.shape(like)
        if shape is not None and sum(d is None for d in shape) <= 1 and 0 not in shape:
            return self.add(
                "Reshape", value, self.integers([-1 if d is None else d for d in shape])
            )
        return self.add("Reshape", value, self.target(like))

    def expand(self, value: str, like: str) -> str:
        return self.add("Expand", value, self.target(like))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Name -> value; strings decoded."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def _constant(node: onnx.NodeProto) -> NDArray[Any] | None:
    for a in node.attribute:
        if a.name == "value":
            return numpy_helper.to_array(a.t)
        if a.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(a), dtype=np.float32)
        if a.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(a), dtype=np.int64)
    return None
