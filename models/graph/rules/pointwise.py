"""Operators that treat every element alike: activations, arithmetic, comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable

from models.graph.rules.base import Gradients, Step, rule
from models.graph.rules.broadcast import unbroadcast


@rule("Identity", "Dropout")
def identity(step: Step) -> Gradients:
    """Dropout does nothing when a network is served."""
    return {0: step.gradient}


@rule(
    "Shape", "Size", "Sign", "Floor", "Ceil", "Round", "ArgMax", "ArgMin", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN", "ConstantOfShape",
)  # fmt: skip
def flat(step: Step) -> Gradients:
    """Constant in pieces: nothing flows back."""
    return {}


@rule("Cast")
def cast(step: Step) -> Gradients:
    if step.tape.types.get(step.x, step.tape.elem_type) != step.tape.elem_type:
        return {}
    return {0: step.tape.add("Cast", step.gradient, to=step.tape.elem_type)}


def _slope(name: str) -> Callable[[Callable[[Step], str]], Callable[[Step], str]]:
    """Register f(step) -> local derivative, of x's shape, as the rule gradient * f."""

    def add(local: Callable[[Step], str]) -> Callable[[Step], str]:
        @rule(name)
        def multiplied(step: Step) -> Gradients:
            return {0: step.tape.add("Mul", step.gradient, local(step))}

        return local

    return add


@_slope("Relu")
def relu(step: Step) -> str:
    return step.tape.add("Sign", step.y)


@_slope("LeakyRelu")
def leaky_relu(step: Step) -> str:
    return _by_sign(step, step.tape.constant(float(step.attributes.get("alpha", 0.01))))


@_slope("PRelu")
def prelu(step: Step) -> str:
    if step.needed != {0}:
        raise step.refused("its slope is computed from the input")
    return _by_sign(step, step.node.input[1])


@_slope("ThresholdedRelu")
def thresholded_relu(step: Step) -> str:
    t = step.tape
    alpha = t.constant(float(step.attributes.get("alpha", 1.0)))
    return _as_number(step, t.add("Greater", step.x, alpha))


@_slope("Elu")
def elu(step: Step) -> str:
    alpha = step.tape.constant(float(step.attributes.get("alpha", 1.0)))
    return _by_sign(step, step.tape.add("Add", step.y, alpha))


@_slope("Selu")
def selu(step: Step) -> str:
    a, t = step.attributes, step.tape
    alpha = float(a.get("alpha", 1.6732631921768188))
    gamma = float(a.get("gamma", 1.0507010221481323))
    return _by_sign(step, t.add("Add", step.y, t.constant(alpha * gamma)), t.constant(gamma))


@_slope("Celu")
def celu(step: Step) -> str:
    t = step.tape
    alpha = float(step.attributes.get("alpha", 1.0))
    return _by_sign(step, t.add("Exp", t.add("Mul", step.x, t.constant(1.0 / alpha))))


@_slope("Softplus")
def softplus(step: Step) -> str:
    return step.tape.add("Sigmoid", step.x)


@_slope("Softsign")
def softsign(step: Step) -> str:
    t = step.tape
    size = t.add("Add", t.add("Abs", step.x), t.constant(1.0))
    return t.add("Reciprocal", t.add("Mul", size, size))


@_slope("Sigmoid")
def sigmoid(step: Step) -> str:
    t = step.tape
    return t.add("Mul", step.y, t.add("Sub", t.constant(1.0), step.y))


@_slope("Tanh")
def tanh(step: Step) -> str:
    t = step.tape
    return t.add("Sub", t.constant(1.0), t.add("Mul", step.y, step.y))


@_slope("HardSigmoid")
def hard_sigmoid(step: Step) -> str:
    t = step.tape
    inside = t.add(
        "And",
        t.add("Greater", step.y, t.constant(0.0)),
        t.add("Less", step.y, t.constant(1.0)),
    )
    alpha = t.constant(float(step.attributes.get("alpha", 0.2)))
    return t.add("Mul", _as_number(step, inside), alpha)


@_slope("HardSwish")
def hard_swish(step: Step) -> str:
    """x h(x) with h = x / 6 + 1/2 clipped to 0..1: h + x / 6 inside, h outside."""
    t = step.tape
    line = t.add("Add", t.add("Mul", step.x, t.constant(1 / 6)), t.constant(0.5))
    h = t.add("Clip", line, t.constant(0.0), t.constant(1.0))
    inside = t.add("Less", t.add("Abs", step.x), t.constant(3.0))
    more = t.add("Mul", t.add("Mul", step.x, t.constant(1 / 6)), _as_number(step, inside))
    return t.add("Add", h, more)


@_slope("Mish")
def mish(step: Step) -> str:
    """x tanh(softplus(x)): T + x s (1 - T^2), s the sigmoid."""
    t = step.tape
    bend = t.add("Tanh", t.add("Softplus", step.x))
    rest = t.add("Sub", t.constant(1.0), t.add("Mul", bend, bend))
    more = t.add("Mul", t.add("Mul", step.x, t.add("Sigmoid", step.x)), rest)
    return t.add("Add", bend, more)


@_slope("Gelu")
def gelu(step: Step) -> str:
    """x P(x), P the normal distribution: P + x p; and its approximation by tanh."""
    t, x = step.tape, step.x
    half = t.constant(0.5)
    square = t.add("Mul", x, x)
    if step.attributes.get("approximate", "none") == "tanh":
        scale = math.sqrt(2 / math.pi)
        cubic = t.add("Add", t.add("Mul", square, t.constant(0.044715)), t.constant(1.0))
        bend = t.add("Tanh", t.add("Mul", t.add("Mul", x, cubic), t.constant(scale)))
        slope = t.add("Add", t.add("Mul", square, t.constant(3 * 0.044715)), t.constant(1.0))
        rest = t.add("Sub", t.constant(1.0), t.add("Mul", bend, bend))
        more = t.add("Mul", t.add("Mul", t.add("Mul", x, slope), rest), t.constant(scale))
        whole = t.add("Add", t.add("Add", bend, t.constant(1.0)), more)
        return t.add("Mul", whole, half)
    bend = t.add("Erf", t.add("Mul", x, t.constant(math.sqrt(0.5))))
    below = t.add("Mul", t.add("Add", bend, t.constant(1.0)), half)
    bell = t.add("Exp", t.add("Mul", square, t.constant(-0.5)))
    density = t.add("Mul", bell, t.constant(1 / math.sqrt(2 * math.pi)))
    return t.add("Add", below, t.add("Mul", x, density))


@_slope("Erf")
def erf(step: Step) -> str:
    t = step.tape
    bell = t.add("Exp", t.add("Neg", t.add("Mul", step.x, step.x)))
    return t.add("Mul", bell, t.constant(2 / math.sqrt(math.pi)))


@_slope("Exp")
def exp(step: Step) -> str:
    return step.y


@_slope("Log")
def log(step: Step) -> str:
    return step.tape.add("Reciprocal", step.x)


@_slope("Sqrt")
def sqrt(step: Step) -> str:
    return step.tape.add("Div", step.tape.constant(0.5), step.y)


@_slope("Reciprocal")
def reciprocal(step: Step) -> str:
    return step.tape.add("Neg", step.tape.add("Mul", step.y, step.y))


@_slope("Abs")
def absolute(step: Step) -> str:
    return step.tape.add("Sign", step.x)


@_slope("Sin")
def sin(step: Step) -> str:
    return step.tape.add("Cos", step.x)


@_slope("Cos")
def cos(step: Step) -> str:
    return step.tape.add("Neg", step.tape.add("Sin", step.x))


@_slope("Clip")
def clip(step: Step) -> str:
    """One inside the limits and on them, as in torch."""
    t = step.tape
    low, high = step.input(1), step.input(2)
    tests = [t.add("GreaterOrEqual", step.x, low)] if low else []
    tests += [t.add("LessOrEqual", step.x, high)] if high else []
    if not tests:
        return t.constant(1.0)
    return _as_number(step, tests[0] if len(tests) == 1 else t.add("And", *tests))


@rule("Neg")
def neg(step: Step) -> Gradients:
    return {0: step.tape.add("Neg", step.gradient)}


@rule("Add", "Sum", "Mean")
def add(step: Step) -> Gradients:
    gradient = step.gradient
    if step.node.op_type == "Mean":
        share = step.tape.constant(1.0 / len(step.node.input))
        gradient = step.tape.add("Mul", gradient, share)
    return {i: unbroadcast(step, gradient, step.node.input[i], step.y) for i in step.needed}


@rule("Sub")
def sub(step: Step) -> Gradients:
    found: Gradients = {}
    for i in step.needed:
        gradient = step.tape.add("Neg", step.gradient) if i else step.gradient
        found[i] = unbroadcast(step, gradient, step.node.input[i], step.y)
    return found


@rule("Mul")
def mul(step: Step) -> Gradients:
    found: Gradients = {}
    for i in step.needed:
        gradient = step.tape.add("Mul", step.gradient, step.node.input[1 - i])
        found[i] = unbroadcast(step, gradient, step.node.input[i], step.y)
    return found


@rule("Div")
def div(step: Step) -> Gradients:
    t = step.tape
    below = step.node.input[1]
    share = t.add("Div", step.gradient, below)
    found: Gradients = {}
    if 0 in step.needed:
        found[0] = unbroadcast(step, share, step.x, step.y)
    if 1 in step.needed:
        gradient = t.add("Neg", t.add("Mul", share, step.y))
        found[1] = unbroadcast(step, gradient, below, step.y)
    return found


@rule("Pow")
def power(step: Step) -> Gradients:
    if step.needed != {0}:
        raise step.refused("its exponent is computed from the input")
    t, exponent = step.tape, step.constant(1).astype(step.tape.dtype)
    lower = t.add("Pow", step.x, t.constant(exponent - 1))
    gradient = t.add("Mul", step.gradient, t.add("Mul", lower, t.constant(exponent)))
    return {0: unbroadcast(step, gradient, step.x, step.y)}


@rule("Where")
def where(step: Step) -> Gradients:
    t, condition = step.tape, step.node.input[0]
    zero = t.constant(0.0)
    found: Gradients = {}
    for i in step.needed - {0}:
        chosen = (step.gradient, zero) if i == 1 else (zero, step.gradient)
        gradient = t.add("Where", condition, *chosen)
        found[i] = unbroadcast(step, gradient, step.node.input[i], step.y)
    return found


@rule("Max", "Min")
def extreme(step: Step) -> Gradients:
    """Equal inputs share alike."""
    t = step.tape
    masks = [_as_number(step, t.add("Equal", name, step.y)) for name in step.node.input]
    total = masks[0]
    for mask in masks[1:]:
        total = t.add("Add", total, mask)
    share = t.add("Div", step.gradient, total)
    return {
        i: unbroadcast(step, t.add("Mul", share, masks[i]), step.node.input[i], step.y)
        for i in step.needed
    }


def _as_number(step: Step, truth: str) -> str:
    return step.tape.add("Cast", truth, to=step.tape.elem_type)


def _by_sign(step: Step, below: str, above: str | None = None) -> str:
    """`above` (one) where x > 0, else `below`."""
    t = step.tape
    positive = t.add("Greater", step.x, t.constant(0.0))
    return t.add("Where", positive, above or t.constant(1.0), below)
