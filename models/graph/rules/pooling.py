"""Pooling with windows."""

from __future__ import annotations

from functools import reduce

import numpy as np

from models.graph.rules.base import Gradients, Step, rule
from models.graph.rules.window import Window


@rule("MaxPool")
def max_pool(step: Step) -> Gradients:
    """The first of equal maxima takes it all, as in torch."""
    window = Window.of(step, step.attributes["kernel_shape"])
    t = step.tape
    indices = _indices(step)
    if window.apart and not window.padded:
        return {
            0: t.add(
                "MaxUnpool",
                step.gradient,
                indices,
                t.target(step.x),
                kernel_shape=list(window.kernel),
                strides=list(window.stride),
            )
        }
    flat = t.integers([-1])
    filled = t.add(
        "ScatterElements",
        t.add("Mul", t.add("Reshape", step.x, flat), t.constant(0.0)),
        t.add("Reshape", indices, flat),
        t.add("Reshape", step.gradient, flat),
        axis=0,
        reduction="add",
    )
    return {0: t.reshape(filled, step.x)}


def _indices(step: Step) -> str:
    """The node's second output, counted over the whole tensor; added where it is not asked for."""
    node = step.node
    if step.attributes.get("storage_order", 0):
        raise step.refused("its indices are column major")
    if len(node.output) < 2 or not node.output[1]:
        name = step.tape.fresh("indices")
        del node.output[1:]
        node.output.append(name)
    return node.output[1]


@rule("AveragePool")
def average_pool(step: Step) -> Gradients:
    """Every window gives each of its elements the same share: a transposed convolution."""
    t, a = step.tape, step.attributes
    window = Window.of(step, a["kernel_shape"])
    axes = range(2, step.rank(step.x))
    before, after = step.sizes(step.x, axes), step.sizes(step.y, axes)
    counts = window.counts(before, after, bool(a.get("count_include_pad", 0)))
    shares = 1.0 / reduce(np.multiply.outer, counts)
    gradient = t.add("Mul", step.gradient, t.constant(shares))
    if window.kernel == window.stride and not window.padded and window.tiles(before):
        # Each share repeated in a block of its own.
        split = [d for n in after for d in (n, 1)]
        whole = [d for n, k in zip(after, window.kernel, strict=True) for d in (n, k)]
        channels = step.sizes(step.x, [1])[0]
        blocks = t.add("Reshape", gradient, t.integers([-1, channels, *split]))
        spread = t.add("Expand", blocks, t.integers([1, channels, *whole]))
        return {0: t.add("Reshape", spread, t.integers([-1, channels, *before]))}
    # Channel by channel, so that one kernel with one channel serves all.
    apart = t.add("Reshape", gradient, t.integers([-1, 1, *after]))
    ones = t.constant(np.ones((1, 1, *window.kernel)))
    back = window.transposed(step, apart, ones, before, after)
    return {0: t.reshape(back, step.x)}
