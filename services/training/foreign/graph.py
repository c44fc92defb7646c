"""A foreign ONNX classifier becomes classifier.onnx and gradients.onnx.

    open -> measure (two batch sizes) -> taps and logits found -> wrap -> differentiate

What the file says of its shapes is not trusted: every value is measured, so that a graph with a
frozen batch, or one whose rows depend on each other, is found here and not in service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from models.errors import InputError
from models.graph import values, wrap
from models.graph.reverse import gradient_graph
from models.graph.shapes import Known
from services.training.foreign.running import Runner, close, noise

BATCHES = (2, 3)


@dataclass(frozen=True)
class Foreign:
    """An opened model, measured. model: batch dynamic, opset 18 or newer. logits: value name."""

    model: onnx.ModelProto
    known: Known
    logits: str
    probabilities: bool
    layout: str
    phases: int
    edge: int

    @property
    def classes(self) -> int:
        return self.known.shapes[self.logits][1] or 0

    def values(self) -> list[values.Value]:
        """What can be a tap, in the network's order."""
        source = self.model.graph.input[0].name
        return values.tap_values(self.model.graph, self.known, source, self.logits)


def open_graph(
    model: onnx.ModelProto,
    phases: int,
    edge: int,
    *,
    logits: str | None = None,
    layout: str | None = None,
) -> Foreign:
    """Open and measure. logits: value or output to classify by. layout: as models.graph.wrap says.

    Raises InputError (adopt_...) naming what does not fit, BundleError for half precision.
    """
    wrap.refuse_half(model)
    opened = wrap.opened(model)
    sizes = wrap.input_sizes(opened)
    layout = wrap.check_layout(layout) if layout else wrap.choose_layout(sizes, phases, edge)
    if logits is not None:
        logits = values.find(opened.graph, logits, [o.name for o in opened.graph.output], "logits")
    name, probabilities = wrap.logits_of(opened, logits)
    lengths = [phases if axis == "p" else edge for axis in layout[1:]]
    if any(s is not None and s != n for s, n in zip(sizes, lengths, strict=True)):
        wrap.choose_layout(sizes, phases, edge)
        raise InputError("the layout does not fit the network's input", code="adopt_layout",
                         field="layout", found=layout)  # fmt: skip
    known, constants = measure(opened, lengths, name)
    opened = values.fold(opened, constants)
    shape = known.shapes.get(name, ())
    if len(shape) != 2 or shape[0] is not None:
        raise InputError(
            "not one number a class for each lesion", code="adopt_logits", field="logits",
            found=f"{name} [{', '.join(str(d or 'batch') for d in shape)}]",
            expected="[batch, classes]; name the value with --logits",
        )  # fmt: skip
    sample = Runner(opened, [name])(noise(3, lengths))[name]
    sums = np.allclose(sample.sum(axis=1), 1, atol=1e-4) and bool((sample >= 0).all())
    return Foreign(opened, known, name, probabilities or sums, layout, phases, edge)


def measure(
    model: onnx.ModelProto, lengths: Sequence[int], logits: str
) -> tuple[Known, dict[str, NDArray[Any]]]:
    """Shapes and types of every value, and those that are constant, from running two batch sizes.

    Constant is what depends on the input's size at most: pads and bounds that a graph works out.

    Raises InputError where the graph cannot run, knows one batch size only, or mixes the rows.
    """
    names = [o for n in model.graph.node for o in n.output if o]
    run = Runner(model, names)
    try:
        first, second = (run(noise(size, lengths)) for size in BATCHES)
    except InputError as error:
        raise _explained(run, lengths, error) from None
    known = Known()
    for name in names:
        known.types[name] = helper.np_dtype_to_tensor_dtype(first[name].dtype)
        if first[name].ndim == second[name].ndim:
            pairs = zip(first[name].shape, second[name].shape, strict=True)
            known.shapes[name] = tuple(a if a == b else None for a, b in pairs)
    x = model.graph.input[0].name
    known.shapes[x], known.types[x] = (None, *lengths), onnx.TensorProto.FLOAT
    one = Runner(model, [logits])
    alone = np.concatenate([one(row[None])[logits] for row in noise(BATCHES[1], lengths)])
    together = second[logits]
    if together.shape != alone.shape or not close(together, alone):
        raise InputError(
            "a lesion's result depends on the others in its batch, or the batch is fixed",
            code="adopt_batch", field="model",
            expected="an export in evaluation mode with a dynamic batch axis",
        )  # fmt: skip
    moving = values.carrying(model.graph, x)
    constants = {
        name: first[name]
        for name in names
        if name not in moving and np.array_equal(first[name], second[name])
    }
    return known, constants


def _explained(run: Runner, lengths: Sequence[int], error: InputError) -> InputError:
    """A frozen batch, where one lesion alone goes through; else the error itself."""
    try:
        run(noise(1, lengths))
    except InputError:
        return error
    return InputError(
        "the graph takes one lesion at a time", code="adopt_batch", field="model",
        found="a fixed batch of 1", expected="an export with a dynamic batch axis",
    )  # fmt: skip


def build(
    foreign: Foreign, taps: Mapping[str, str], classifier: Path, gradients: Path
) -> dict[str, int]:
    """Write both files; the taps' lengths, in the network's order. taps: our name -> value.

    Raises InputError for a tap that is unknown, off the way or of a wrong shape, BundleError
    no_derivative for an operator without a rule.
    """
    usable = foreign.values()
    by_name = {v.name: v for v in usable}
    chosen: dict[str, values.Value] = {}
    for tap, asked in taps.items():
        name = values.find(foreign.model.graph, asked, by_name, "taps")
        if name not in by_name:
            raise InputError(
                "the value cannot be a tap", code="adopt_tap", field=tap,
                found=f"{name} {_shown(foreign.known, name)}",
                expected="[batch, D] or [batch, D, x, y, z] on the way to the logits",
            )  # fmt: skip
        chosen[tap] = by_name[name]
    order = [v.name for v in usable]
    chosen = dict(sorted(chosen.items(), key=lambda row: order.index(row[1].name)))
    model = wrap.wrap(
        foreign.model,
        {tap: v.name for tap, v in chosen.items()},
        {tap: len(v.shape) for tap, v in chosen.items()},
        foreign.logits,
        phases=foreign.phases,
        edge=foreign.edge,
        classes=foreign.classes,
        probabilities=foreign.probabilities,
        layout=foreign.layout,
    )
    widths = {tap: v.width for tap, v in chosen.items()}
    known = _outer_known(foreign, model)
    for output in model.graph.output:
        sizes = known.shapes[output.name][1:]
        output.CopyFrom(
            helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["batch", *sizes])
        )
    onnx.checker.check_model(model)
    onnx.save(model, str(classifier))
    onnx.save(gradient_graph(model, list(widths), known), str(gradients))
    return widths


def _shown(known: Known, name: str) -> str:
    shape = known.shapes.get(name)
    return "" if shape is None else f"[{', '.join(str(d or 'batch') for d in shape)}]"


def _outer_known(foreign: Foreign, model: onnx.ModelProto) -> Known:
    lengths = [foreign.phases, *[foreign.edge] * 3]
    return measure(model, lengths, wrap.LOGITS)[0]
