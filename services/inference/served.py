"""What is served under Open Inference Protocol: each model a name, its tensors, and how it runs.

`classifier`: x -> scores, logits, every tap and '<tap>_map'; parameter precision: fp32, or an
              accepted variant of the bundle
`gradients`:  x, w_logits, w_<tap> -> grad_input, grad_<tap>; weights that are left out are zero.
`passes`:     base, w_... (one row each) -> what the two above give, a row a stochastic pass
              parameters: count, seed, first (models.recipes.Draw)
`paths`:      x (one row), baseline, w_... (a row a goal) -> gradient, change; no baseline is zero
              parameters: steps, first, count (models.recipes.Line)

A new model is an entry of SERVED, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle.variant import FP32, PRECISIONS
from models.errors import TooLarge
from models.recipes import Draw, Line
from services.inference.host import ModelHost
from services.inference.oip_codec import CodecError

MOST_ROWS = 256  # passes of one request, or goals times points
MOST_STEPS = 1024
MOST_SEED = 2**53  # what JSON keeps exactly

Tensors = Mapping[str, NDArray[np.float32]]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Served:
    """One model of the protocol.

    inputs, outputs: name -> shape, -1 for the batch axis, 1 where one row serves all. required:
    inputs that must be there; the others count as zero. default: outputs of a request that names
    none. run(host, inputs, names, parameters) -> the named outputs; it is called in a thread of the
    scheduler, once `inputs` are checked. short: a row of it is one run of the classifier, so few
    rows may go ahead of long work, and one-row requests may share a run. variants: another
    precision than fp32 may answer.
    """

    name: str
    inputs: Callable[[ModelHost], Shapes]
    outputs: Callable[[ModelHost], Shapes]
    required: tuple[str, ...]
    default: tuple[str, ...]
    run: Callable[[ModelHost, Tensors, Sequence[str], Mapping[str, Any]], dict[str, NDArray]]
    short: bool = False
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


def _drawn(host: ModelHost) -> Shapes:
    one = {k: [1, *shape[1:]] for k, shape in _weighed(host).items() if k != "x"}
    phases, edge = host.model.info.input_shape[0], host.bundle.preprocessing.base_voxels
    return {"base": [1, phases, edge, edge, edge], **one}


def _drawn_outputs(host: ModelHost) -> Shapes:
    slopes = {k: v for k, v in host.shapes["gradients"].items() if k != "grad_input"}
    return {**host.shapes["classifier"], **slopes}


def _pathed(host: ModelHost) -> Shapes:
    shape = list(host.model.info.input_shape)
    weights = {k: v for k, v in _weighed(host).items() if k != "x"}
    return {"x": [1, *shape], "baseline": [-1, *shape], **weights}


def _pathed_outputs(host: ModelHost) -> Shapes:
    return {"gradient": [-1, *host.model.info.input_shape], "change": [-1, 1]}


def _classify(
    host: ModelHost, inputs: Tensors, names: Sequence[str], parameters: Mapping[str, Any]
) -> dict[str, NDArray]:
    precision = SERVED["classifier"].precision(host, parameters)
    return host.at(precision).forward(inputs["x"], names)


def _differentiate(
    host: ModelHost, inputs: Tensors, names: Sequence[str], _: Mapping[str, Any]
) -> dict[str, NDArray]:
    weights = {k.removeprefix("w_"): v for k, v in inputs.items() if k != "x"}
    found = host.model.gradients(inputs["x"], weights, [n.removeprefix("grad_") for n in names])
    return {name: found[name.removeprefix("grad_")] for name in names}


def _pass(
    host: ModelHost, inputs: Tensors, names: Sequence[str], parameters: Mapping[str, Any]
) -> dict[str, NDArray]:
    draw = Draw(
        inputs["base"][0],
        host.bundle.preprocessing,
        host.bundle.recipe,
        count=_whole(parameters, "count", 1, MOST_ROWS),
        seed=_whole(parameters, "seed", 0, MOST_SEED),
        first=_whole(parameters, "first", 0, MOST_SEED, 0),
    )
    weights = {k.removeprefix("w_"): v[0] for k, v in inputs.items() if k != "base"}
    return host.model.passes(draw, names, weights)


def _follow(
    host: ModelHost, inputs: Tensors, names: Sequence[str], parameters: Mapping[str, Any]
) -> dict[str, NDArray]:
    weights = {k.removeprefix("w_"): v for k, v in inputs.items() if k.startswith("w_")}
    if not weights:
        raise CodecError("no target is weighed", field="w_logits", expected="w_logits or w_<tap>")
    goals = len(next(iter(weights.values())))
    steps = _whole(parameters, "steps", 1, MOST_STEPS)
    first = _whole(parameters, "first", 0, steps - 1, 0)
    count = _whole(parameters, "count", 1, steps - first, steps - first)
    if goals * count > MOST_ROWS:
        raise TooLarge(
            "too many evaluations for one request: ask for fewer goals, or for parts of the path",
            field="count", found=f"{goals} goals of {count} points",
            expected=f"goals times points <= {MOST_ROWS}",
        )  # fmt: skip
    x = inputs["x"][0]
    baselines = inputs.get("baseline")
    if baselines is None:
        baselines = np.zeros((goals, *x.shape), np.float32)
    found = host.model.paths(Line(x, baselines, steps, first, count), weights)
    found["change"] = found["change"][:, None]
    return {name: found[name] for name in names}


def _whole(
    parameters: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None
) -> int:
    """A parameter of the request. Raises CodecError unless it is an integer within the bounds."""
    value = parameters.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise CodecError(
            "the parameter is missing" if value is None else "not a number that is served",
            code="bad_parameter", field=f"parameters.{name}",
            found=None if value is None else str(value)[:40],
            expected=f"an integer from {low} to {high}",
        )  # fmt: skip
    return value


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
        Served(
            name="passes",
            inputs=_drawn,
            outputs=_drawn_outputs,
            required=("base",),
            default=("scores", "logits"),
            run=_pass,
        ),
        Served(
            name="paths",
            inputs=_pathed,
            outputs=_pathed_outputs,
            required=("x",),
            default=("gradient", "change"),
            run=_follow,
        ),
    )
}
