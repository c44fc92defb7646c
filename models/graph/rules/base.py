"""The registry of derivative rules: one function an ONNX operator.

A rule is given the gradient of a node's outputs and returns the gradient of its inputs:

    @rule("Neg")
    def neg(step: Step) -> Gradients:
        return {0: step.tape.add("Neg", step.gradient)}

Every returned value has the shape of the input it belongs to, or is wrapped in Spread where it is
only broadcastable to it (one number for a whole map): expanding is put off, often for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from models.errors import BundleError
from models.graph.shapes import Shape
from models.graph.tape import Tape, attributes


@dataclass(frozen=True)
class Spread:
    """A gradient of a smaller, broadcastable shape."""

    name: str


Gradient = str | Spread
Gradients = dict[int, Gradient]


@dataclass(frozen=True)
class Step:
    """One node on the way back. incoming: gradient an output, None where nothing arrives.

    needed: indices of the inputs whose gradient is asked for.
    """

    tape: Tape
    node: onnx.NodeProto
    incoming: Sequence[str | None]
    needed: frozenset[int]

    @property
    def gradient(self) -> str:
        """Of the first output."""
        found = self.incoming[0]
        if found is None:
            raise self.refused("its first output is not used")
        return found

    @property
    def x(self) -> str:
        return self.node.input[0]

    @property
    def y(self) -> str:
        return self.node.output[0]

    @property
    def attributes(self) -> dict[str, Any]:
        return attributes(self.node)

    def input(self, index: int) -> str | None:
        """Name of an optional input, None where it is left out."""
        names = self.node.input
        return names[index] if index < len(names) and names[index] else None

    def shape(self, name: str) -> Shape:
        """Dimensions; None within where one follows the batch. Raises BundleError if unknown."""
        found = self.tape.shape(name)
        if found is None:
            raise self.refused(f"the shape of {name!r} is not known")
        return found

    def sizes(self, name: str, axes: Sequence[int]) -> list[int]:
        """Fixed lengths along axes. Raises BundleError where one is not fixed."""
        shape = self.shape(name)
        found = [shape[a] for a in axes]
        if any(d is None for d in found):
            raise self.refused(f"the length of {name!r} along axes {list(axes)} is not fixed")
        return [int(d) for d in found if d is not None]

    def rank(self, name: str) -> int:
        return len(self.shape(name))

    def constant(self, index: int) -> Any:
        """The array of a constant input. Raises BundleError where it is computed."""
        name = self.input(index)
        value = None if name is None else self.tape.value(name)
        if value is None:
            raise self.refused(f"its input {index} is not constant")
        return value

    def refused(self, why: str) -> BundleError:
        """The error that stops a derivation at this node."""
        return BundleError(
            f"node {self.node.name or self.y!r} (op {self.node.op_type}) cannot be "
            f"differentiated: {why}",
            code="no_derivative",
            field="gradients",
        )


Rule = Callable[[Step], Gradients]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators of the default ONNX domain."""

    def add(function: Rule) -> Rule:
        for name in operators:
            RULES[name] = function
        return function

    return add
