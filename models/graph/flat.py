"""Convolutions over volumes as convolutions over slices, which onnxruntime computes faster.

    out[d] = sum over k of kernel[k] * in[d + k]
           = kernels side by side * (in[d], in[d + 1], in[d + 2])

so the slices of a padded volume become images with K times the channels. onnxruntime unfolds a
volume into a matrix first, and has direct kernels for images alone: a whole forward pass of the
default network costs 0.7 of what it did. The sums are taken in another order: equal but for
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.graph.protobuf import fields, message, raw
from models.graph.slices import Node, Whole, read_node, varints

_FLOAT, _INT64, _INT, _INTS = 1, 7, 2, 7


def flat_file(data: bytes) -> bytes:
    """An ONNX file with its convolutions turned; as it is where none can be. Raises BundleError."""
    whole = Whole.read(data)
    if not whole.plain or all(_kernel(node, whole) is None for node in whole.nodes):
        return data
    return flattened(whole).cut(list(whole.outputs))


def flattened(whole: Whole) -> Whole:
    """The same graph with every convolution that can be turned so, names and outputs kept."""
    nodes: list[Node] = []
    weights = dict(whole.weights)
    for number, node in enumerate(whole.nodes):
        kernel = _kernel(node, whole)
        if kernel is None:
            nodes.append(node)
        else:
            _turn(node, kernel, f"flat/{number}", nodes, weights)
    return replace(whole, nodes=tuple(nodes), weights=weights)


def _kernel(node: Node, whole: Whole) -> NDArray[np.float32] | None:
    """The kernel [O, C, K, K, K] of a dense convolution with padding by numbers, else None."""
    if node.op != "Conv" or node.inputs[1] not in whole.weights:
        return None
    kernel = _array(whole.weights[node.inputs[1]])
    if kernel is None or kernel.ndim != 5 or max(kernel.shape[2:]) == 1:
        return None
    dense = all(
        set(node.numbers.get(name, (1,))) == {1} for name in ("strides", "dilations", "group")
    )
    return kernel if dense and len(node.numbers.get("pads", ())) == 6 else None


def _axis(size: Sequence[int]) -> int:
    """The spatial axis that becomes channels: the shortest kernel with neighbours copies least."""
    return min((n for n in range(3) if size[n] > 1), key=lambda n: size[n])


def _turn(
    node: Node,
    kernel: NDArray[np.float32],
    name: str,
    nodes: list[Node],
    weights: dict[str, bytes],
) -> None:
    """Append the nodes that stand for one convolution."""
    axis = _axis(kernel.shape[2:])
    plane = [n for n in range(3) if n != axis]
    forth = [0, 2 + axis, 1, *(2 + n for n in plane)]
    outputs, channels, depth, *edge = kernel.transpose(0, 1, *(2 + n for n in (axis, *plane))).shape
    pads = node.numbers["pads"]
    ahead, behind = pads[axis], pads[3 + axis]

    def constant(what: str, value: NDArray) -> str:
        weights[f"{name}/{what}"] = _tensor(f"{name}/{what}", value)
        return f"{name}/{what}"

    def add(op: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> str:
        nodes.append(read_node(_written(op, inputs, [output], attributes)))
        return output

    def whole_numbers(what: str, *values: int) -> str:
        return constant(what, np.array(values, np.int64))

    volume = add("Transpose", [node.inputs[0]], f"{name}/slices", perm=forth)
    if ahead or behind:
        margins = whole_numbers("margins", 0, ahead, 0, 0, 0, 0, behind, 0, 0, 0)
        volume = add("Pad", [volume, margins], f"{name}/padded")
    first = whole_numbers("axis", 1)
    shifted = [
        add(
            "Slice",
            [
                volume,
                whole_numbers(f"from{k}", k),
                whole_numbers(f"to{k}", k + 1 - depth if k + 1 < depth else 2**62),
                first,
            ],
            f"{name}/shifted{k}",
        )
        for k in range(depth)
    ]
    joined = add("Concat", shifted, f"{name}/joined", axis=2)
    edges = add("Shape", [joined], f"{name}/edges", start=3)
    size = add("Concat", [whole_numbers("lead", -1, depth * channels), edges],
               f"{name}/size", axis=0)  # fmt: skip
    images = add("Reshape", [joined, size], f"{name}/images")
    beside = kernel.transpose(0, *forth[1:]).reshape(outputs, depth * channels, *edge)
    flat = add(
        "Conv", [images, constant("kernel", beside), *node.inputs[2:]], f"{name}/flat",
        kernel_shape=edge, pads=[pads[side + n] for side in (0, 3) for n in plane],
    )  # fmt: skip
    back = add(
        "Concat",
        [
            whole_numbers("any", -1),
            add("Shape", [joined], f"{name}/depth", start=1, end=2),
            add("Shape", [flat], f"{name}/image", start=1),
        ],
        f"{name}/back",
        axis=0,
    )
    add("Transpose", [add("Reshape", [flat, back], f"{name}/stacked")], node.outputs[0],
        perm=[forth.index(n) for n in range(5)])  # fmt: skip


def _written(
    op: str, inputs: Sequence[str], outputs: Sequence[str], attributes: dict[str, int | list[int]]
) -> bytes:
    parts: list[tuple[int, int | bytes | str]] = [(1, i) for i in inputs]
    parts += [(2, o) for o in outputs]
    parts.append((4, op))
    for key, value in attributes.items():
        held: list[tuple[int, int | bytes | str]] = [(1, key)]
        held += [(8, v) for v in value] if isinstance(value, list) else [(3, value)]
        held.append((20, _INTS if isinstance(value, list) else _INT))
        parts.append((5, message(held)))
    return message(parts)


def _tensor(name: str, value: NDArray) -> bytes:
    kind = _FLOAT if value.dtype == np.float32 else _INT64
    data = np.ascontiguousarray(value, "<f4" if kind == _FLOAT else "<i8").tobytes()
    return message([*((1, n) for n in value.shape), (2, kind), (8, name), (9, data)])


def _array(tensor: bytes) -> NDArray[np.float32] | None:
    """A float tensor that is kept as raw bytes; None for any other."""
    dims: list[int] = []
    kind, data = 0, None
    for number, wire, value in fields(tensor):
        if number == 1:
            dims += [value] if isinstance(value, int) else varints(raw(value))
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 9 and wire == 2:
            data = raw(value)
    if kind != _FLOAT or data is None or len(data) != 4 * int(np.prod(dims)):
        return None
    return np.frombuffer(data, "<f4").reshape(dims)
