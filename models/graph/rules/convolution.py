"""Convolutions. The derivative of one by its input is a transposed convolution."""

from __future__ import annotations

import numpy as np

from models.graph.rules.base import Gradients, Step, rule
from models.graph.rules.window import Window


@rule("Conv")
def conv(step: Step) -> Gradients:
    if step.needed != {0}:
        raise step.refused("its kernel is computed from the input")
    weight = step.constant(1)
    window = Window.of(step, weight.shape[2:])
    groups = step.attributes.get("group", 1)
    t = step.tape
    pads = [r - b for r, b in zip(window.reach, window.begin, strict=True)]
    pads += [r - e for r, e in zip(window.reach, window.end, strict=True)]
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    # onnxruntime computes a plain convolution faster than a transposed one, unless many channels
    # become few (16 to 3 at 24 cubed: 2.2 against 0.9 ms).
    if set(window.stride) == {1} and min(pads) >= 0 and outputs < 3 * inputs:
        space = weight.shape[2:]
        turned = np.flip(weight, axis=tuple(range(2, weight.ndim)))
        turned = turned.reshape(groups, outputs, inputs, *space).swapaxes(1, 2)
        turned = turned.reshape(groups * inputs, outputs, *space)
        return {
            0: t.add(
                "Conv",
                step.gradient,
                t.constant(turned),
                kernel_shape=list(space),
                pads=pads,
                dilations=list(window.dilation),
                group=groups,
            )
        }
    axes = range(2, weight.ndim)
    before, after = step.sizes(step.x, axes), step.sizes(step.y, axes)
    name = step.node.input[1]
    return {0: window.transposed(step, step.gradient, name, before, after, groups)}


@rule("ConvTranspose")
def conv_transpose(step: Step) -> Gradients:
    """The way back is the convolution with the same kernel."""
    if step.needed != {0}:
        raise step.refused("its kernel is computed from the input")
    a, weight = step.attributes, step.constant(1)
    if "output_shape" in a or a.get("auto_pad", "NOTSET") != "NOTSET":
        raise step.refused("its pads follow from an output shape")
    window = Window.of(step, weight.shape[2:])
    return {
        0: step.tape.add(
            "Conv",
            step.gradient,
            step.node.input[1],
            kernel_shape=list(window.kernel),
            strides=list(window.stride),
            dilations=list(window.dilation),
            pads=[*window.begin, *window.end],
            group=a.get("group", 1),
        )
    }
