"""Reductions over axes, and softmax, whose derivative is one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.graph.rules.base import Gradients, Spread, Step, rule


@rule("GlobalAveragePool")
def global_average_pool(step: Step) -> Gradients:
    space = step.sizes(step.x, range(2, step.rank(step.x)))
    share = step.tape.constant(1.0 / math.prod(space))
    return {0: Spread(step.tape.add("Mul", step.gradient, share))}


@rule("ReduceMean", "ReduceSum")
def mean_or_sum(step: Step) -> Gradients:
    axes = _axes(step)
    gradient = step.gradient
    if step.node.op_type == "ReduceMean":
        count = math.prod(step.sizes(step.x, axes))
        gradient = step.tape.add("Mul", gradient, step.tape.constant(1.0 / count))
    return {0: Spread(_restored(step, gradient, axes))}


@rule("ReduceMax", "ReduceMin", "GlobalMaxPool")
def extreme(step: Step) -> Gradients:
    """Equal maxima share alike."""
    t = step.tape
    pooled = step.node.op_type == "GlobalMaxPool"
    axes = list(range(2, step.rank(step.x))) if pooled else _axes(step)
    top = step.y if pooled else _restored(step, step.y, axes)
    gradient = step.gradient if pooled else _restored(step, step.gradient, axes)
    mask = t.add("Cast", t.add("Equal", step.x, top), to=t.elem_type)
    count = t.add("ReduceSum", mask, t.integers(axes), keepdims=1)
    return {0: t.add("Mul", mask, t.add("Div", gradient, count))}


@rule("ReduceSumSquare")
def sum_of_squares(step: Step) -> Gradients:
    t = step.tape
    twice = t.add("Mul", _restored(step, step.gradient, _axes(step)), t.constant(2.0))
    return {0: t.add("Mul", step.x, twice)}


@rule("ReduceL2")
def euclidean(step: Step) -> Gradients:
    t, axes = step.tape, _axes(step)
    share = t.add("Div", _restored(step, step.gradient, axes), _restored(step, step.y, axes))
    return {0: t.add("Mul", step.x, share)}


@rule("Softmax")
def softmax(step: Step) -> Gradients:
    """y (g - sum of g y)."""
    t = step.tape
    axes = t.integers([step.attributes.get("axis", -1)])
    total = t.add("ReduceSum", t.add("Mul", step.gradient, step.y), axes, keepdims=1)
    return {0: t.add("Mul", step.y, t.add("Sub", step.gradient, total))}


@rule("LogSoftmax")
def log_softmax(step: Step) -> Gradients:
    """g - softmax * sum of g."""
    t = step.tape
    axes = t.integers([step.attributes.get("axis", -1)])
    total = t.add("ReduceSum", step.gradient, axes, keepdims=1)
    return {0: t.add("Sub", step.gradient, t.add("Mul", t.add("Exp", step.y), total))}


def _axes(step: Step) -> list[int]:
    """The axes that a reduction takes away, from its attribute or its second input, sorted."""
    a, rank = step.attributes, step.rank(step.x)
    given: Sequence[int] | None = a.get("axes")
    if given is None and step.input(1) is not None:
        given = [int(i) for i in step.constant(1)]
    if not given:
        return [] if a.get("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(i % rank for i in given)


def _restored(step: Step, value: str, axes: Sequence[int]) -> str:
    """`value` with the reduced axes put back as ones, where the node dropped them."""
    if step.attributes.get("keepdims", 1) or not axes:
        return value
    return step.tape.add("Unsqueeze", value, step.tape.integers(axes))
