"""Matrix products."""

from __future__ import annotations

from models.graph.rules.base import Gradients, Step, rule
from models.graph.rules.broadcast import unbroadcast


@rule("Gemm")
def gemm(step: Step) -> Gradients:
    """Y = alpha A' B' + beta C, where a prime stands for an optional transposition."""
    t, a = step.tape, step.attributes
    alpha, beta = float(a.get("alpha", 1.0)), float(a.get("beta", 1.0))
    turn_a, turn_b = int(a.get("transA", 0)), int(a.get("transB", 0))
    left, right, g = step.node.input[0], step.node.input[1], step.gradient
    found: Gradients = {}
    if 0 in step.needed and turn_a:
        found[0] = t.add("Gemm", right, g, alpha=alpha, transA=turn_b, transB=1)
    elif 0 in step.needed:
        found[0] = t.add("Gemm", g, right, alpha=alpha, transB=1 - turn_b)
    if 1 in step.needed and turn_b:
        found[1] = t.add("Gemm", g, left, alpha=alpha, transA=1, transB=turn_a)
    elif 1 in step.needed:
        found[1] = t.add("Gemm", left, g, alpha=alpha, transA=1 - turn_a)
    if 2 in step.needed:
        scaled = g if beta == 1 else t.add("Mul", g, t.constant(beta))
        found[2] = unbroadcast(step, scaled, step.node.input[2], step.y)
    return found


@rule("MatMul")
def matmul(step: Step) -> Gradients:
    left, right = step.node.input
    if min(step.rank(left), step.rank(right)) < 2:
        raise step.refused("one of its factors is a vector")
    t = step.tape
    found: Gradients = {}
    if 0 in step.needed:
        product = t.add("MatMul", step.gradient, _turned(step, right))
        found[0] = unbroadcast(step, product, left, step.y, kept=2)
    if 1 in step.needed:
        product = t.add("MatMul", _turned(step, left), step.gradient)
        found[1] = unbroadcast(step, product, right, step.y, kept=2)
    return found


def _turned(step: Step, name: str) -> str:
    """The last two axes exchanged."""
    rank = step.rank(name)
    return step.tape.add("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
