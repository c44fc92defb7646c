"""A foreign classifier as classifier.onnx: input 'x'; scores, logits, taps and maps as outputs.

    theirs   any input name and layout, logits or probabilities, activations inside
    ours     x [batch, P, K, K, K] -> scores, logits [batch, C], each tap [batch, D], '<tap>_map'

The network itself is untouched; what is added stands before and behind it. Its own names get a
prefix, so none can clash with ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import compose, helper, inliner, numpy_helper, version_converter

from models.errors import BundleError, InputError

PREFIX = "net/"
OPSET = 18
INPUT, SCORES, LOGITS = "x", "scores", "logits"
# A layout names the axes of the network's input: batch, phases, and our three of space.
PLAIN = "bpxyz"
FLOOR = 1e-12


def opened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one dynamic batch axis, no functions of its own, opset 18 or newer.

    Raises InputError for what is no classifier of one float32 image.
    """
    model = inliner.inline_local_functions(model) if model.functions else model
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter raises whatever its adapters raise
            raise InputError(
                "the graph cannot be brought to a newer opset: " + str(error).splitlines()[0],
                code="adopt_opset", field="model",
                found=f"opset {opset}", expected=f"opset {OPSET} or newer",
            ) from None  # fmt: skip
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held = {t.name for t in copy.graph.initializer}
    inputs = [i for i in copy.graph.input if i.name not in held]
    if len(inputs) != 1:
        raise InputError(
            "the graph has other than one input", code="adopt_input", field="model",
            found=", ".join(i.name for i in inputs) or "none", expected="the image alone",
        )  # fmt: skip
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise InputError(
            "the input is not float32", code="adopt_input", field=inputs[0].name,
            found=onnx.TensorProto.DataType.Name(kind.elem_type).lower(),
            expected="a graph in single precision",
        )  # fmt: skip
    dims = kind.shape.dim
    if len(dims) != 5:
        raise InputError(
            "the input is not a batch of volumes", code="adopt_input", field=inputs[0].name,
            found=f"{len(dims)} axes", expected="5: batch, phases, and three of space",
        )  # fmt: skip
    dims[0].Clear()
    dims[0].dim_param = "batch"
    # Shapes that were inferred for another batch would contradict this one.
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    del copy.graph.input[:]
    copy.graph.input.append(inputs[0])
    return copy


def input_sizes(model: onnx.ModelProto) -> list[int | None]:
    """Lengths of the opened model's input behind the batch; None for a dynamic one."""
    dims = model.graph.input[0].type.tensor_type.shape.dim[1:]
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]


def choose_layout(sizes: Sequence[int | None], phases: int, edge: int) -> str:
    """'bpxyz' or 'bxyzp', by where the phases stand. Raises InputError where neither fits.

    sizes: as input_sizes gives. phases, edge: of the tensors that the preprocessing makes.
    """
    for layout in (PLAIN, "bxyzp"):
        wanted = [phases if axis == "p" else edge for axis in layout[1:]]
        if all(s is None or s == w for s, w in zip(sizes, wanted, strict=True)):
            return layout
    raise InputError(
        "the network takes another shape than the preprocessing makes",
        code="adopt_shape",
        field="preprocessing",
        found="[batch, " + ", ".join(str(s or "any") for s in sizes) + "]",
        expected=f"[batch, {phases}, {edge}, {edge}, {edge}] for {phases} phases and tensor_voxels "
        f"{edge}",
    )


def check_layout(layout: str) -> str:
    """Raises InputError unless it is 'b' and the letters p, x, y, z in any order."""
    if len(layout) != 5 or layout[0] != "b" or sorted(layout[1:]) != sorted("pxyz"):
        raise InputError(
            "not a layout", code="adopt_layout", field="layout", found=layout,
            expected="b and then p, x, y, z in the network's order, as in bpzyx",
        )  # fmt: skip
    return layout


def wrap(
    model: onnx.ModelProto,
    taps: Mapping[str, str],
    ranks: Mapping[str, int],
    logits: str,
    *,
    phases: int,
    edge: int,
    classes: int,
    probabilities: bool = False,
    layout: str = PLAIN,
) -> onnx.ModelProto:
    """classifier.onnx around an opened model.

    taps: our name -> value in the model. ranks: of each such value, 2 or 5. logits: the value
    [batch, classes]; where these are probabilities their logarithm serves, which softmax undoes.
    """
    outer = _Outer(compose.add_prefix(model, PREFIX), layout)
    raw = PREFIX + logits
    if probabilities:
        raw = outer.add("Log", outer.add("Max", raw, outer.constant(np.float32(FLOOR))))
    outer.name(raw, LOGITS, ["batch", classes])
    outer.name(outer.add("Softmax", raw, axis=1), SCORES, ["batch", classes])
    maps = [tap for tap in taps if ranks[tap] == 5]
    for tap, value in taps.items():
        held = PREFIX + value
        if tap in maps:
            outer.name(outer.turned_back(held), f"{tap}_map", None)
            axes = outer.constant(np.array([2, 3, 4]))
            held = outer.add("ReduceMean", f"{tap}_map", axes, keepdims=0)
        outer.name(held, tap, None)
    order = [SCORES, LOGITS, *taps, *(f"{tap}_map" for tap in maps)]
    return outer.finish([phases, edge, edge, edge], order)


class _Outer:
    """Nodes before and behind a prefixed model."""

    def __init__(self, model: onnx.ModelProto, layout: str) -> None:
        self.model, self.graph, self.layout = model, model.graph, layout
        self.outputs: dict[str, onnx.ValueInfoProto] = {}
        self.count = 0

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        self.count += 1
        name = f"wrap/{self.count}/{op}"
        self.graph.node.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray | np.floating) -> str:
        self.count += 1
        name = f"wrap/{self.count}/constant"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def name(self, value: str, public: str, shape: list[str | int] | None) -> None:
        self.graph.node.append(helper.make_node("Identity", [value], [public]))
        self.outputs[public] = helper.make_tensor_value_info(public, onnx.TensorProto.FLOAT, shape)

    def turned_back(self, value: str) -> str:
        """A map in the axes of our tensors: channels second, space in our order.

        A network with the phases last keeps its channels there only if its operators do; ONNX's
        convolutions never do, so only the order of space is undone.
        """
        space = [a for a in self.layout if a in "xyz"]
        if space == list("xyz"):
            return value
        return self.add("Transpose", value, perm=[0, 1, *(2 + space.index(a) for a in "xyz")])

    def finish(self, sizes: list[int], order: Sequence[str]) -> onnx.ModelProto:
        """Our input in place of theirs, our outputs in the order asked for."""
        theirs = self.graph.input[0].name
        if self.layout == PLAIN:
            first = helper.make_node("Identity", [INPUT], [theirs])
        else:
            turn = [PLAIN.index(a) for a in self.layout]
            first = helper.make_node("Transpose", [INPUT], [theirs], perm=turn)
        rest = list(self.graph.node)
        del self.graph.node[:]
        self.graph.node.extend([first, *rest])
        del self.graph.input[:], self.graph.output[:]
        shape = ["batch", *sizes]
        self.graph.input.append(helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, shape))
        self.graph.output.extend(self.outputs[name] for name in order)
        return self.model


def tap_names(asked: Sequence[str]) -> dict[str, str]:
    """'name=value' or 'value' -> {our name: value}; a name follows from the value where not given.

    Raises InputError for a name that is taken, reserved or not a plain identifier.
    """
    found: dict[str, str] = {}
    for text in asked:
        name, equals, value = text.partition("=")
        if not equals:
            name, value = _plain(text), text
        reserved = name in (INPUT, SCORES, LOGITS, "input") or name.endswith("_map")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or reserved or name in found:
            raise InputError(
                "not a name for a tap", code="adopt_tap", field="taps", found=name or text,
                expected="letters, digits and _, not x, input, scores, logits or ..._map, each "
                "once; as in late=/features/Relu_output_0",
            )  # fmt: skip
        found[name] = value
    if not found:
        raise InputError(
            "no tap is named", code="adopt_tap", field="taps",
            expected="at least one value, see --list-taps",
        )  # fmt: skip
    return found


def _plain(value: str) -> str:
    text = re.sub(r"[^A-Za-z0-9]+", "_", value).strip("_")
    return text if text[:1].isalpha() else f"tap_{text}"


def logits_of(model: onnx.ModelProto, asked: str | None) -> tuple[str, bool]:
    """(value, whether it holds probabilities) of an opened model, as far as its nodes tell.

    Without a name: an output called 'logits', or the only one. Behind a softmax its input is
    taken. Raises InputError where the choice is not clear.
    """
    outputs = [o.name for o in model.graph.output]
    producer = {o: n for n in model.graph.node for o in n.output}
    if asked is None:
        if LOGITS not in outputs and len(outputs) != 1:
            raise InputError(
                "several outputs", code="adopt_logits", field="logits",
                found=", ".join(outputs), expected="--logits with the one to classify by",
            )  # fmt: skip
        asked = LOGITS if LOGITS in outputs else outputs[0]
    name = asked
    while name in producer and producer[name].op_type in ("Identity", "Dropout"):
        name = producer[name].input[0]
    if name in producer and producer[name].op_type == "Softmax":
        return producer[name].input[0], False
    if name in producer and producer[name].op_type == "Sigmoid":
        raise InputError(
            "the classes are judged one by one, by a sigmoid each", code="adopt_logits",
            field="logits", found=asked, expected="one softmax over the classes",
        )  # fmt: skip
    return asked, False


def refuse_half(model: onnx.ModelProto) -> None:
    """Raises BundleError for weights that are not in single precision."""
    low = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    found = [t.name for t in model.graph.initializer if t.data_type in low]
    if found:
        raise BundleError(
            "the weights are in half precision", code="adopt_precision", field=found[0],
            expected="a graph in single precision",
        )  # fmt: skip
