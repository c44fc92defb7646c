"""Undoing a broadcast: the gradient of a value that was repeated is the sum over its copies."""

from __future__ import annotations

from models.graph.rules.base import Step


def unbroadcast(step: Step, gradient: str, source: str, result: str, kept: int = 0) -> str:
    """`gradient`, in the shape of `result`, summed down to the shape of `source`.

    kept: so many last axes the gradient has as the source has them already.
    """
    small, large = step.shape(source), step.shape(result)
    large = (*large[: len(large) - kept], *small[len(small) - kept :])
    if small == large:
        return gradient
    lead = len(large) - len(small)
    axes = [
        *range(lead),
        *(i + lead for i, d in enumerate(small) if d == 1 and large[i + lead] != 1),
    ]
    if not axes:
        return gradient
    summed = step.tape.add("ReduceSum", gradient, step.tape.integers(axes), keepdims=1)
    return step.tape.reshape(summed, source) if lead else summed
