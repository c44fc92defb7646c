"""Normalisations, as they act when a network is served."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.graph.rules.base import Gradients, Step, rule


@rule("BatchNormalization")
def batch_normalization(step: Step) -> Gradients:
    """With running statistics it is a gain a channel."""
    if step.attributes.get("training_mode", 0):
        raise step.refused("it is in training mode: export the network in evaluation mode")
    scale, variance = step.constant(1), step.constant(4)
    gain = scale / np.sqrt(variance + step.attributes.get("epsilon", 1e-5))
    shape = (len(gain), *[1] * (step.rank(step.x) - 2))
    return {0: step.tape.add("Mul", step.gradient, step.tape.constant(gain.reshape(shape)))}


@rule("InstanceNormalization")
def instance_normalization(step: Step) -> Gradients:
    rank = step.rank(step.x)
    weighted = _by_channel(step, step.gradient, rank)
    return {0: _standardised(step, step.x, weighted, range(2, rank))}


@rule("LayerNormalization")
def layer_normalization(step: Step) -> Gradients:
    rank = step.rank(step.x)
    first = step.attributes.get("axis", -1) % rank
    weighted = step.tape.add("Mul", step.gradient, step.node.input[1])
    return {0: _standardised(step, step.x, weighted, range(first, rank))}


@rule("GroupNormalization")
def group_normalization(step: Step) -> Gradients:
    t, rank = step.tape, step.rank(step.x)
    groups, channels = step.attributes["num_groups"], step.sizes(step.x, [1])[0]
    scale = step.constant(1)
    # One scale a group in the first version of the operator, one a channel since.
    gain = np.repeat(scale, channels // len(scale)).reshape(-1, *[1] * (rank - 2))
    weighted = t.add("Mul", step.gradient, t.constant(gain))
    grouped = t.integers([0, groups, -1])
    x, g = t.add("Reshape", step.x, grouped), t.add("Reshape", weighted, grouped)
    return {0: t.reshape(_standardised(step, x, g, [2]), step.x)}


def _by_channel(step: Step, gradient: str, rank: int) -> str:
    scale = step.constant(1).reshape(-1, *[1] * (rank - 2))
    return step.tape.add("Mul", gradient, step.tape.constant(scale))


def _standardised(step: Step, x: str, gradient: str, over: Sequence[int]) -> str:
    """Derivative of (x - mean) / sqrt(var + eps): (g - mean g - z mean(g z)) / sqrt(var + eps)."""
    t = step.tape
    axes = t.integers(list(over))

    def mean(value: str) -> str:
        return t.add("ReduceMean", value, axes, keepdims=1)

    epsilon = t.constant(float(step.attributes.get("epsilon", 1e-5)))
    centred = t.add("Sub", x, mean(x))
    variance = t.add("Add", mean(t.add("Mul", centred, centred)), epsilon)
    deviation = t.add("Sqrt", variance)
    z = t.add("Div", centred, deviation)
    along = t.add("Mul", z, mean(t.add("Mul", gradient, z)))
    rest = t.add("Sub", t.add("Sub", gradient, mean(gradient)), along)
    return t.add("Div", rest, deviation)
