"""Operators that move elements and change none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.graph.rules.base import Gradients, Step, rule
from models.graph.rules.broadcast import unbroadcast


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(step: Step) -> Gradients:
    return {0: step.tape.reshape(step.gradient, step.x)}


@rule("Transpose")
def transpose(step: Step) -> Gradients:
    order = step.attributes.get("perm") or list(range(step.rank(step.x)))[::-1]
    return {0: step.tape.add("Transpose", step.gradient, perm=[int(i) for i in np.argsort(order)])}


@rule("Expand")
def expand(step: Step) -> Gradients:
    return {0: unbroadcast(step, step.gradient, step.x, step.y)}


@rule("Concat")
def concat(step: Step) -> Gradients:
    axis = step.attributes["axis"]
    lengths = [step.sizes(name, [axis])[0] for name in step.node.input]
    names = step.tape.add_many(
        "Split", step.gradient, step.tape.integers(lengths), outputs=len(lengths), axis=axis
    )
    return {i: names[i] for i in step.needed}


@rule("Split")
def split(step: Step) -> Gradients:
    parts = [g or _zeros(step, y) for g, y in zip(step.incoming, step.node.output, strict=True)]
    return {0: step.tape.add("Concat", *parts, axis=step.attributes.get("axis", 0))}


@rule("Slice")
def cut(step: Step) -> Gradients:
    t, rank = step.tape, step.rank(step.x)
    starts, ends = step.constant(1), step.constant(2)
    axes = step.constant(3) if step.input(3) else range(len(starts))
    steps = step.constant(4) if step.input(4) else [1] * len(starts)
    gradient, before, after = step.gradient, [0] * rank, [0] * rank
    for start, end, raw, stride in zip(starts, ends, axes, steps, strict=True):
        axis = int(raw) % rank
        if (int(start), int(stride)) == (0, 1) and int(end) >= np.iinfo(np.int32).max:
            continue
        size = step.sizes(step.x, [axis])[0]
        chosen = range(size)[slice(_bound(start), _bound(end), int(stride))]
        if stride == 1:
            before[axis], after[axis] = chosen.start, size - chosen.stop
        else:
            gradient = _put_back(step, gradient, list(chosen), size, axis)
    if any(before) or any(after):
        gradient = t.add("Pad", gradient, t.integers([*before, *after]))
    return {0: gradient}


def _bound(value: int) -> int | None:
    """A slice bound as Python takes it: the smallest int64 stands for 'from before the start'."""
    return None if value <= -np.iinfo(np.int32).max else int(value)


@rule("Gather")
def gather(step: Step) -> Gradients:
    axis = step.attributes.get("axis", 0) % step.rank(step.x)
    indices = step.constant(1)
    size = step.sizes(step.x, [axis])[0]
    chosen = [int(i) % size for i in np.atleast_1d(indices)] if indices.ndim < 2 else []
    if indices.ndim > 1 or len(set(chosen)) < len(chosen):
        raise step.refused("it picks an element twice, or in several axes")
    gradient = step.gradient
    if indices.ndim == 0:
        gradient = step.tape.add("Unsqueeze", gradient, step.tape.integers([axis]))
    return {0: _put_back(step, gradient, chosen, size, axis)}


@rule("Pad")
def pad(step: Step) -> Gradients:
    mode = step.attributes.get("mode", "constant")
    if mode != "constant":
        raise step.refused(f"its mode is {mode!r}")
    t = step.tape
    more = [t.constant(0.0), t.integers(step.constant(3))] if step.input(3) else []
    return {0: t.add("Pad", step.gradient, t.integers(-step.constant(1)), *more)}


def _put_back(step: Step, gradient: str, chosen: Sequence[int], size: int, axis: int) -> str:
    """Rows of `gradient` back to the places `chosen` of `size` along the axis, zeros elsewhere."""
    t, rank = step.tape, step.rank(step.x)
    inverse = np.full(size, len(chosen))
    inverse[list(chosen)] = np.arange(len(chosen))
    if len(chosen) < size:
        pads = np.zeros(2 * rank, np.int64)
        pads[rank + axis] = 1
        gradient = t.add("Pad", gradient, t.integers(pads))
    return t.add("Gather", gradient, t.integers(inverse), axis=axis)


def _zeros(step: Step, like: str) -> str:
    return step.tape.add("Mul", like, step.tape.constant(0.0))
