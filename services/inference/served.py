"""What is served under Open Inference Protocol: each model a name, its tensors, and how it runs.

`classifier`: x -> scores, logits, every tap and '<tap>_map'; parameter precision: fp32, or an
              accepted variant of the bundle
`gradients`:  x, w_logits, w_<tap> -> grad_input, grad_<tap>; weights that are left out are zero.

A new model is an entry of SERVED, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.variant import FP32, PRECISIONS
from services.inference.host import ModelHost
from services.inference.oip_codec import CodecError

Tensors = Mapping[str, NDArray[np.float32]]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Served:
    """One model of the protocol.

    inputs, outputs: name -> shape, -1 for the batch axis. required: inputs that must be there; the
    others count as zero. default: outputs of a request that names none. run(host, inputs, names,
    parameters) -> the named outputs; it is called in a thread of the pool. variants: another
    precision than fp32 may answer.
    """

    name: str
    inputs: Callable[[ModelHost], Shapes]
    outputs: Callable[[ModelHost], Shapes]
    required: tuple[str, ...]
    default: tuple[str, ...]
    run: Callable[[ModelHost, Tensors, Sequence[str], Mapping[str, Any]], dict[str, NDArray]]
    variants: bool = False

    def precision(self, host: ModelHost, parameters: Mapping[str, Any]) -> str:
        """What answers a request with these parameters: the one that it asks for, else the host's.

        Raises CodecError where another than fp32 is asked of a model that has no variants.
        """
        asked = parameters.get("precision")
        if asked is None:
            return host.precision if self.variants else FP32
        if not isinstance(asked, str) or (asked != FP32 and not self.variants):
            raise CodecError(
                "not at this precision",
                code="variant_unknown",
                field="precision",
                found=str(asked)[:40],
                expected="one of " + ", ".join(PRECISIONS) if self.variants else FP32,
            )
        return asked


def _x(host: ModelHost) -> Shapes:
    return {"x": [-1, *host.model.info.input_shape]}


def _weighed(host: ModelHost) -> Shapes:
    info = host.model.info
    weights = {"logits": len(info.classes), **info.taps}
    return {**_x(host), **{f"w_{name}": [-1, length] for name, length in weights.items()}}


def _classify(
    host: ModelHost, inputs: Tensors, names: Sequence[str], parameters: Mapping[str, Any]
) -> dict[str, NDArray]:
    precision = SERVED["classifier"].precision(host, parameters)
    return host.at(precision).forward(inputs["x"], names)


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
            variants=True,
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
