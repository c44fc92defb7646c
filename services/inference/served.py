"""What is served under Open Inference Protocol: each model a name, its tensors, and how it runs.

`classifier`: x -> scores, logits, every tap and '<tap>_map'.
`gradients`:  x, w_logits, w_<tap> -> grad_input, grad_<tap>; weights that are left out are zero.

A new model is an entry of SERVED, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.inference.host import ModelHost

Tensors = Mapping[str, NDArray[np.float32]]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Served:
    """One model of the protocol.

    inputs, outputs: name -> shape, -1 for the batch axis. required: inputs that must be there; the
    others count as zero. default: outputs of a request that names none. run(host, inputs, names,
    parameters) -> the named outputs; it is called in a thread of the scheduler, once `inputs` are
    checked. short: a row of it is one run of the classifier, so few rows may go ahead of long work,
    and one-row requests may share a run.
    """

    name: str
    inputs: Callable[[ModelHost], Shapes]
    outputs: Callable[[ModelHost], Shapes]
    required: tuple[str, ...]
    default: tuple[str, ...]
    run: Callable[[ModelHost, Tensors, Sequence[str], Mapping[str, Any]], dict[str, NDArray]]
    short: bool = False


def _x(host: ModelHost) -> Shapes:
    return {"x": [-1, *host.model.info.input_shape]}


def _weighed(host: ModelHost) -> Shapes:
    info = host.model.info
    weights = {"logits": len(info.classes), **info.taps}
    return {**_x(host), **{f"w_{name}": [-1, length] for name, length in weights.items()}}


def _classify(
    host: ModelHost, inputs: Tensors, names: Sequence[str], _: Mapping[str, Any]
) -> dict[str, NDArray]:
    return host.model.forward(inputs["x"], names)


def _differentiate(
    host: ModelHost, inputs: Tensors, names: Sequence[str], _: Mapping[str, Any]
) -> dict[str, NDArray]:
    weights = {k.removeprefix("w_"): v for k, v in inputs.items() if k != "x"}
    found = host.model.gradients(inputs["x"], weights)
    return {name: found[name.removeprefix("grad_")] for name in names}


SERVED: Mapping[str, Served] = {
    model.name: model
    for model in (
        Served(
            name="classifier",
            inputs=_x,
            outputs=lambda host: host.shapes["classifier"],
            required=("x",),
            default=("scores", "logits"),
            run=_classify,
            short=True,
        ),
        Served(
            name="gradients",
            inputs=_weighed,
            outputs=lambda host: host.shapes["gradients"],
            required=("x",),
            default=("grad_input",),
            run=_differentiate,
        ),
    )
}
