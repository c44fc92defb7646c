"""Reverse-mode differentiation of an ONNX graph: classifier.onnx in, gradients.onnx out.

    classifier.onnx   x -> logits, each tap [B, D], and '<tap>_map' where a tap is pooled from a map
    gradients.onnx    x, w_logits, w_<tap>... -> grad_input, grad_<tap>...

The result holds the forward pass and, behind it, the derivative of

    sum(w_logits * logits) + sum over taps of sum(w_tap * tap)

written with plain ONNX operators, so that any runtime computes saliency without torch. Gradients
flow from node to node by the rules of models.graph.rules (Griewank and Walther, Evaluating
Derivatives, 2008, chapter 3); nodes that lie on no path from x to a weighted output are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from models.errors import BundleError
from models.graph.rules.base import RULES, Gradient, Spread, Step
from models.graph.shapes import Known, Shape, infer
from models.graph.tape import Tape

OPSET = 18
INPUT = "x"
LOGITS = "logits"
NOT_TAPS = ("scores", LOGITS)


def gradient_graph(
    classifier: Path | onnx.ModelProto,
    taps: Sequence[str] | None = None,
    known: Known | None = None,
) -> onnx.ModelProto:
    """The gradient graph of a classifier with the outputs named above, opset 18 or newer.

    taps: names of pooled outputs, in order; all outputs but scores, logits and maps by default.
    known: shapes of the values, where they are known better than the graph alone tells.
    grad_<tap> is [B, D]: the gradient of the tap's map summed over space, which is the derivative
    along a uniform shift of the map; of the vector itself where there is no map.

    A map that is a concatenation beside the path (members of an ensemble) gets its parts'
    gradients, concatenated. Raises BundleError no_derivative naming the node without a rule.
    """
    model = onnx.load(str(classifier)) if isinstance(classifier, Path) else classifier
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    outputs = [o.name for o in graph.output]
    names = default_taps(outputs) if taps is None else list(taps)
    _require([i.name for i in graph.input], outputs, names)
    known = known or infer(model)
    shapes = known.shapes
    tape = Tape(graph, known)
    ways = _Ways(graph)
    seeds = {tap: f"w_{tap}" for tap in (LOGITS, *names)}
    adjoints = _Adjoints(tape, ways, seeds)
    adjoints.run()

    results = {"grad_input": adjoints.final(INPUT)}
    for tap in names:
        held = f"{tap}_map" if f"{tap}_map" in outputs else tap
        value = adjoints.joined(held)
        rank = len(shapes.get(held, ()))
        if rank > 2:
            axes = tape.integers(list(range(2, rank)))
            value = tape.add("ReduceSum", value, axes, keepdims=0)
        results[f"grad_{tap}"] = value
    for name, value in results.items():
        tape.nodes.append(helper.make_node("Identity", [value], [name]))
    return _model(model, tape, shapes, seeds, results, names)


def default_taps(outputs: Sequence[str]) -> list[str]:
    """Every output but scores, logits and maps."""
    maps = {f"{name}_map" for name in outputs}
    return [o for o in outputs if o not in NOT_TAPS and o not in maps]


def _require(inputs: Sequence[str], outputs: Sequence[str], taps: Sequence[str]) -> None:
    faults = [f"the graph has no output {n!r}" for n in (LOGITS, *taps) if n not in outputs]
    if list(inputs) != [INPUT]:
        faults.insert(0, f"the graph has the inputs {', '.join(inputs)} in place of {INPUT!r}")
    if faults:
        raise BundleError(faults[0], code="export_names", field="classifier")


class _Ways:
    """Which values lie between x and the weighted outputs."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.producer = {o: n for n in self.nodes for o in n.output if o}
        self.reached = {INPUT}
        for node in self.nodes:
            if any(i in self.reached for i in node.input):
                self.reached.update(o for o in node.output if o)

    def behind(self, ends: Sequence[str]) -> set[str]:
        """Every value that one of `ends` is computed from, the ends included."""
        found: set[str] = set()
        waiting = list(ends)
        while waiting:
            name = waiting.pop()
            if name in found or not name:
                continue
            found.add(name)
            if name in self.producer:
                waiting.extend(self.producer[name].input)
        return found


class _Adjoints:
    """Gradients by value name; contributions are summed when the value's producer is reached."""

    def __init__(self, tape: Tape, ways: _Ways, seeds: dict[str, str]) -> None:
        self.tape, self.ways = tape, ways
        self.waiting: dict[str, list[Gradient]] = {k: [v] for k, v in seeds.items()}
        self.done: dict[str, str] = {}
        self.live = ways.behind(list(seeds)) & ways.reached
        self.to_logits = ways.behind([LOGITS]) & ways.reached

    def run(self) -> None:
        """From the last node to the first."""
        for node in reversed(self.ways.nodes):
            incoming = [self._close(o) if o in self.live else None for o in node.output]
            needed = frozenset(i for i, name in enumerate(node.input) if name in self.live)
            if not needed or all(g is None for g in incoming):
                continue
            step = Step(self.tape, node, incoming, needed)
            if node.op_type not in RULES or node.domain not in ("", "ai.onnx"):
                raise step.refused("there is no derivative rule for this operator")
            for index, value in RULES[node.op_type](step).items():
                self.waiting.setdefault(node.input[index], []).append(value)

    def final(self, name: str) -> str:
        """The whole gradient of a value. Raises BundleError where none arrives."""
        found = self._close(name)
        if found is None:
            raise BundleError(
                "no gradient arrives: the value does not lead to the logits",
                code="no_derivative", field=name,
            )  # fmt: skip
        return found

    def joined(self, name: str) -> str:
        """Gradient of a tap's value; of a side branch that only joins values, of its parts."""
        node = self.ways.producer.get(name)
        if node is not None and name not in self.to_logits:
            if node.op_type in ("Identity", "Transpose"):
                # Where an axis of space stands does not matter to a sum over space.
                return self.joined(node.input[0])
            if node.op_type == "Concat":
                axis = next(a.i for a in node.attribute if a.name == "axis")
                return self.tape.add("Concat", *(self.joined(i) for i in node.input), axis=axis)
        return self.final(name)

    def _close(self, name: str) -> str | None:
        if name in self.done:
            return self.done[name]
        found = self.waiting.pop(name, None)
        if not found:
            return None
        full = [g for g in found if isinstance(g, str)]
        spread = [g.name for g in found if isinstance(g, Spread)]
        total = self._sum(spread)
        if full:
            total = self._sum([*full, total] if total else full)
        elif total:
            total = self.tape.expand(total, name)
        assert total is not None
        self.done[name] = total
        return total

    def _sum(self, names: Sequence[str]) -> str | None:
        if not names:
            return None
        total = names[0]
        for name in names[1:]:
            total = self.tape.add("Add", total, name)
        return total


def _model(
    source: onnx.ModelProto,
    tape: Tape,
    shapes: dict[str, Shape],
    seeds: dict[str, str],
    results: dict[str, str],
    taps: Sequence[str],
) -> onnx.ModelProto:
    """The pruned graph with typed inputs and outputs; its first axes are called 'batch'."""
    kind = tape.elem_type

    def typed(name: str, shape: Sequence[int | None]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape[1:]])

    widths = {name: shapes.get(name, (None, None)) for name in (LOGITS, *taps)}
    inputs = [typed(INPUT, shapes[INPUT])]
    inputs += [typed(seeds[name], shape) for name, shape in widths.items()]
    outputs = [typed("grad_input", shapes[INPUT])]
    outputs += [typed(f"grad_{tap}", widths[tap]) for tap in taps]
    nodes = _needed(tape.nodes, list(results))
    used = {i for n in nodes for i in n.input}
    held = [*source.graph.initializer, *tape.made]
    graph = helper.make_graph(
        nodes, "gradients", inputs, outputs, [t for t in held if t.name in used]
    )
    opset = max((o.version for o in source.opset_import if o.domain in ("", "ai.onnx")), default=0)
    made = helper.make_model(
        graph,
        producer_name="lesionlens",
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=source.ir_version,
    )
    onnx.checker.check_model(made)
    return made


def _needed(nodes: Sequence[onnx.NodeProto], ends: Sequence[str]) -> list[onnx.NodeProto]:
    wanted, kept = set(ends), []
    for node in reversed(nodes):
        if any(o in wanted for o in node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]
