"""Parts of an ONNX graph as graphs of their own, cut out when a bundle is loaded.

    nodes, weights   of a file (or of two files around one network, joined)
    cut(inputs, outputs)  the nodes between, with values inside of the graph as inputs if need be

onnxruntime computes every node of a graph, whatever outputs are asked for, so asking for less pays
only where the rest is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from models.graph.protobuf import BYTES, VARINT, fields, message, raw, text

# Field numbers of onnx.proto3.
_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTIONS = 1, 7, 8, 25
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 5, 11, 12, 15
# Element types by the names that onnxruntime gives them.
_TYPES = {"tensor(float)": 1, "tensor(int32)": 6, "tensor(int64)": 7, "tensor(bool)": 9}
_SUBGRAPHS = (6, 11)


@dataclass(frozen=True)
class Node:
    """One node. numbers: its integer attributes, name -> values."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]]
    data: bytes
    nested: bool


@dataclass(frozen=True)
class Whole:
    """A file's graph: nodes in order, weights by name, inputs and outputs by name."""

    nodes: tuple[Node, ...]
    weights: Mapping[str, bytes]
    inputs: Mapping[str, bytes]
    outputs: Mapping[str, bytes]
    ir_version: int
    opsets: tuple[bytes, ...]
    plain: bool

    @classmethod
    def read(cls, data: bytes) -> Whole:
        """From an ONNX file. plain: no functions, nested graphs or sparse weights are in it."""
        ir, graph, opsets, plain = 0, b"", [], True
        for number, _, value in fields(data):
            if number == _MODEL_IR and isinstance(value, int):
                ir = value
            elif number == _MODEL_GRAPH:
                graph = raw(value)
            elif number == _MODEL_OPSET:
                opsets.append(raw(value))
            elif number == _MODEL_FUNCTIONS:
                plain = False
        nodes, weights, inputs, outputs = [], {}, {}, {}
        for number, _, value in fields(graph):
            if number == _NODE:
                nodes.append(read_node(raw(value)))
            elif number == _INITIALIZER:
                weights[_named(raw(value), 8)] = raw(value)
            elif number == _INPUT:
                inputs[_named(raw(value), 1)] = raw(value)
            elif number == _OUTPUT:
                outputs[_named(raw(value), 1)] = raw(value)
            elif number == _SPARSE:
                plain = False
        return cls(
            tuple(nodes),
            weights,
            {k: v for k, v in inputs.items() if k not in weights},
            outputs,
            ir,
            tuple(opsets),
            plain and not any(node.nested for node in nodes),
        )

    def producer(self, name: str) -> Node | None:
        return next((n for n in self.nodes if name in n.outputs), None)

    def users(self, name: str) -> list[Node]:
        return [n for n in self.nodes if name in n.inputs]

    def behind(self, ends: Sequence[str], stop: Sequence[str] = ()) -> list[Node]:
        """The nodes that `ends` are computed from, in order; not those before a value of `stop`."""
        wanted, kept = set(ends) - set(stop), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                kept.append(node)
                wanted.update(i for i in node.inputs if i not in stop)
        return kept[::-1]

    def reached(self, starts: Sequence[str]) -> set[str]:
        """Every value that depends on one of `starts`, these included."""
        found = set(starts)
        for node in self.nodes:
            if found.intersection(node.inputs):
                found.update(o for o in node.outputs if o)
        return found

    def joined(self, other: Whole) -> Whole | None:
        """This graph and what only the other one computes, where both are of one network.

        None where a name means different things in them.
        """
        mine = {o: n for n in self.nodes for o in n.outputs if o}
        for node in other.nodes:
            same = mine.get(node.outputs[0])
            if same is not None and (same.op, same.inputs) != (node.op, node.inputs):
                return None
        shared = self.weights.keys() & other.weights.keys()
        if any(self.weights[k] != other.weights[k] for k in shared) or self.opsets != other.opsets:
            return None
        extra = tuple(n for n in other.nodes if n.outputs[0] not in mine)
        if any(o in mine for n in extra for o in n.outputs):
            return None
        return Whole(
            # What the other adds stands behind the values that it reads.
            _ordered((*self.nodes, *extra), {*self.weights, *other.weights, *self.inputs}),
            {**other.weights, **self.weights},
            {**other.inputs, **self.inputs},
            {**other.outputs, **self.outputs},
            max(self.ir_version, other.ir_version),
            self.opsets,
            self.plain and other.plain,
        )

    def cut(
        self, outputs: Sequence[str], inner: Mapping[str, tuple[str, Sequence[int | None]]] = {}
    ) -> bytes:
        """An ONNX file that gives `outputs`.

        inner: values of the graph that become inputs, name -> (type, shape with None for an unknown
        length). Inputs of the whole that are not needed are left out.
        """
        nodes = self.behind(outputs, tuple(inner))
        used = {i for n in nodes for i in n.inputs}
        used.update(outputs)
        parts: list[tuple[int, int | bytes | str]] = [(_NODE, _lean(n, used)) for n in nodes]
        parts.append((2, "slice"))
        parts += [(_INITIALIZER, v) for k, v in self.weights.items() if k in used]
        parts += [(_INPUT, v) for k, v in self.inputs.items() if k in used]
        parts += [(_INPUT, _typed(k, *inner[k])) for k in inner if k in used]
        # Of a value inside, the runtime finds the type itself.
        parts += [(_OUTPUT, self.outputs.get(o) or message([(1, o)])) for o in outputs]
        return message(
            [
                (_MODEL_IR, self.ir_version),
                (2, "lesionlens"),
                (_MODEL_GRAPH, message(parts)),
                *((_MODEL_OPSET, opset) for opset in self.opsets),
            ]
        )


def _ordered(nodes: Sequence[Node], known: set[str]) -> tuple[Node, ...]:
    """In an order in which each value is there before it is read; stable."""
    made = {o for n in nodes for o in n.outputs if o}
    there, waiting, out = set(known), list(nodes), []
    while waiting:
        ready, later = [], []
        for node in waiting:
            if all(i in there or i not in made for i in node.inputs):
                ready.append(node)
                there.update(node.outputs)
            else:
                later.append(node)
        if not ready:
            break  # a circle: no graph that a runtime would open
        out += ready
        waiting = later
    return (*out, *waiting)


def read_node(data: bytes) -> Node:
    """A node from its message."""
    inputs, outputs, op, numbers, nested = [], [], "", {}, False
    for number, _, value in fields(data):
        if number == 1:
            inputs.append(text(value))
        elif number == 2:
            outputs.append(text(value))
        elif number == 4:
            op = text(value)
        elif number == 7:
            op = op if not value else f"{text(value)}::{op}"
        elif number == 5:
            name, found, inside = _attribute(raw(value))
            nested |= inside
            if found:
                numbers[name] = found
    return Node(op, tuple(inputs), tuple(outputs), numbers, data, nested)


def _attribute(data: bytes) -> tuple[str, tuple[int, ...], bool]:
    name, found, nested = "", [], False
    for number, _, value in fields(data):
        if number == 1:
            name = text(value)
        elif number in (3, 8):
            # Integers stand one by one, or packed into one field of bytes.
            packed = [value] if isinstance(value, int) else varints(raw(value))
            found += [v - (1 << 64) if v >= 1 << 63 else v for v in packed]
        elif number in _SUBGRAPHS:
            nested = True
    return name, tuple(found), nested


def varints(data: bytes) -> list[int]:
    """Integers that are packed into one field."""
    out, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            out.append(value)
            value = shift = 0
    return out


def _named(data: bytes, number: int) -> str:
    return next((text(v) for n, _, v in fields(data) if n == number), "")


def _lean(node: Node, used: Collection[str]) -> bytes:
    """The node without a pooling's indices where nobody reads them: they cost most of it."""
    if node.op != "MaxPool" or not set(node.outputs[1:]).isdisjoint(used):
        return node.data
    parts, outputs = [], 0
    for number, kind, value in fields(node.data):
        outputs += number == 2
        if number != 2 or outputs == 1:
            if kind not in (VARINT, BYTES):
                return node.data
            parts.append((number, value))
    return message(parts)


def _typed(name: str, kind: str, shape: Sequence[int | None]) -> bytes:
    dims = [message([(1, n)] if n is not None else [(2, f"n{i}")]) for i, n in enumerate(shape)]
    tensor = message([(1, _TYPES[kind]), (2, message([(1, d) for d in dims]))])
    return message([(1, name), (2, message([(1, tensor)]))])
