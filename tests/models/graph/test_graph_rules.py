"""Every derivative rule against central differences, in double precision.

The graphs run in ONNX's own reference evaluator, which is slow and independent of any runtime; a
second pass asks onnxruntime for the same numbers in single precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from models.errors import BundleError
from models.graph.reverse import gradient_graph
from models.graph.rules import RULES

BATCH = 2


@dataclass(frozen=True)
class Case:
    """One graph y = f(x): nodes name their values; 'x' goes in, 'y' comes out."""

    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]]
    shape: tuple[int, ...] = (3, 4)
    constants: Mapping[str, Any] = field(default_factory=dict)
    positive: bool = False
    opset: int = 18


def one(op: str, *more: Any, shape: tuple[int, ...] = (3, 4), **attributes: Any) -> Case:
    """A single node; `more` are its constant inputs behind x."""
    names = [f"c{i}" for i in range(len(more))]
    return Case(
        [(op, ["x", *names], ["y"], attributes)], shape, dict(zip(names, more, strict=True))
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def model_of(case: Case, dtype: Any) -> onnx.ModelProto:
    """The case with its output flattened to 'logits'."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def array(value: Any) -> np.ndarray:
        a = np.asarray(value)
        return a.astype(dtype) if a.dtype.kind == "f" else a

    nodes = [helper.make_node(op, i, o, **a) for op, i, o, a in case.nodes]
    nodes.append(helper.make_node("Flatten", ["y"], ["logits"], axis=1))
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", kind, ["batch", *case.shape])],
        [helper.make_tensor_value_info("logits", kind, None)],
        [numpy_helper.from_array(array(v), k) for k, v in case.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)])
    model.ir_version = 10
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def w(*shape: int, seed: int = 3) -> np.ndarray:
    return rng(seed).normal(size=shape)


SPACE = (4, 6, 5, 7)  # channels and an uneven box
CUBE = (2, 4, 4, 4)
CASES: dict[str, Case] = {
    **{
        op: one(op)
        for op in (
            "Identity", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign",
            "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Mish", "Erf", "Exp", "Abs",
            "Sin", "Cos", "Neg", "ThresholdedRelu",
        )
    },
    "Elu/alpha": one("Elu", alpha=0.7),
    "Celu/alpha": one("Celu", alpha=0.7),
    "PRelu": one("PRelu", w(3, 1)),
    "Log": Case([("Log", ["x"], ["y"], {})], positive=True),
    "Reciprocal": Case([("Reciprocal", ["x"], ["y"], {})], positive=True),
    "Sqrt": Case([("Sqrt", ["x"], ["y"], {})], positive=True),
    "Gelu": Case([("Gelu", ["x"], ["y"], {})], opset=20),
    "Gelu/tanh": Case([("Gelu", ["x"], ["y"], {"approximate": "tanh"})], opset=20),
    "Clip": one("Clip", np.float64(-0.5), np.float64(0.8)),
    "Clip/low": one("Clip", np.float64(-0.5)),
    "Dropout": one("Dropout"),
    "Cast": one("Cast", to=1),
    "Add": one("Add", w(3, 1)),
    "Add/own": Case([("Add", ["x", "x"], ["y"], {})]),
    "Sum": Case([("Sum", ["x", "a", "x"], ["y"], {})], constants={"a": w(4)}),
    "Mean": Case([("Mean", ["x", "a", "x"], ["y"], {})], constants={"a": w(4)}),
    "Sub": Case([("Sub", ["a", "x"], ["y"], {})], constants={"a": w(3, 4)}),
    "Mul/own": Case([("Mul", ["x", "x"], ["y"], {})]),
    "Mul/gate": Case(
        [
            ("ReduceMean", ["x", "axes"], ["m"], {"keepdims": 1}),
            ("Sigmoid", ["m"], ["s"], {}),
            ("Mul", ["x", "s"], ["y"], {}),
        ],
        constants={"axes": np.array([2])},
    ),
    "Div": Case(
        [("ReduceSum", ["x", "axes"], ["m"], {"keepdims": 1}), ("Div", ["x", "m"], ["y"], {})],
        constants={"axes": np.array([1])},
        positive=True,
    ),
    "Pow": Case([("Pow", ["x", "a"], ["y"], {})], constants={"a": np.float64(2.5)}, positive=True),
    "Pow/int": Case([("Pow", ["x", "a"], ["y"], {})], constants={"a": np.int64(3)}),
    "Where": Case(
        [("Greater", ["x", "a"], ["c"], {}), ("Mul", ["x", "a"], ["b"], {}),
         ("Where", ["c", "x", "b"], ["y"], {})],
        constants={"a": np.float64(0.3)},
    ),
    "Max": Case([("Max", ["x", "a"], ["y"], {})], constants={"a": w(4)}),
    "Min": Case([("Min", ["a", "x"], ["y"], {})], constants={"a": w(3, 1)}),
    "Floor": Case([("Floor", ["x"], ["f"], {}), ("Mul", ["x", "f"], ["y"], {})]),
    "Reshape": one("Reshape", np.array([-1, 2, 6])),
    "Flatten": one("Flatten", shape=(3, 4, 2)),
    "Squeeze": one("Squeeze", np.array([2]), shape=(3, 1, 4)),
    "Unsqueeze": one("Unsqueeze", np.array([1, 4])),
    "Transpose": one("Transpose", shape=(3, 4, 2), perm=[0, 2, 3, 1]),
    "Expand": one("Expand", np.array([1, 3, 5]), shape=(3, 1)),
    "Concat": Case(
        [("Exp", ["x"], ["e"], {}), ("Concat", ["e", "a", "x"], ["y"], {"axis": 2})],
        constants={"a": w(BATCH, 3, 2)},
    ),
    "Split": Case(
        [
            ("Split", ["x", "sizes"], ["a", "b", "c"], {"axis": -1}),
            ("Exp", ["c"], ["e"], {}),
            ("Concat", ["e", "a"], ["y"], {"axis": 2}),
        ],
        constants={"sizes": np.array([1, 2, 1])},
    ),
    "Slice": one("Slice", np.array([1, 0]), np.array([2**62, -1]), np.array([1, 2])),
    "Slice/steps": one("Slice", np.array([-1]), np.array([-(2**62)]),
                       np.array([2]), np.array([-2])),
    "Gather": one("Gather", np.array([2, 0]), axis=1),
    "Gather/scalar": one("Gather", np.int64(-1), axis=2),
    "Pad": one("Pad", np.array([0, 1, 0, 0, 2, 1])),
    "Pad/crop": one("Pad", np.array([0, -1, 0, 0, 2, -1])),
    "Gemm": one("Gemm", w(5, 4), w(5), shape=(4,), transB=1, alpha=0.5, beta=2.0),
    "Gemm/own": Case([("Gemm", ["x", "x"], ["y"], {"transB": 1})], shape=(4,)),
    "Gemm/left": Case(
        [("Gemm", ["a", "x", "x"], ["y"], {"transA": 1, "beta": 0.5})],
        shape=(4,), constants={"a": w(BATCH, BATCH)},
    ),
    "MatMul": one("MatMul", w(4, 5)),
    "MatMul/own": Case(
        [("Transpose", ["x"], ["t"], {"perm": [0, 2, 1]}), ("MatMul", ["x", "t"], ["y"], {})]
    ),
    "MatMul/left": Case([("MatMul", ["a", "x"], ["y"], {})], constants={"a": w(1, 5, 3)}),
    "MatMul/shared": Case(
        [("ReduceMean", ["x", "axes"], ["m"], {"keepdims": 1}), ("MatMul", ["a", "m"], ["y"], {})],
        shape=(5, 3, 4),
        constants={"axes": np.array([1]), "a": w(1, 5, 2, 3)},
    ),
    "Softmax": one("Softmax", axis=1),
    "LogSoftmax": one("LogSoftmax"),
    "GlobalAveragePool": one("GlobalAveragePool", shape=CUBE),
    "GlobalMaxPool": one("GlobalMaxPool", shape=CUBE),
    "ReduceMean": one("ReduceMean", np.array([-1, 2]), shape=(3, 4, 2), keepdims=0),
    "ReduceSum": one("ReduceSum", np.array([1]), keepdims=1),
    "ReduceMax": one("ReduceMax", np.array([2]), keepdims=0),
    "ReduceMin": one("ReduceMin", np.array([1])),
    "ReduceL2": one("ReduceL2", np.array([2]), keepdims=0),
    "ReduceSumSquare": one("ReduceSumSquare", np.array([1])),
    "BatchNormalization": one(
        "BatchNormalization", w(3), w(3), w(3), np.array([0.5, 1.0, 2.0]), epsilon=1e-3
    ),
    "InstanceNormalization": one("InstanceNormalization", w(3), w(3), shape=(3, 4, 3)),
    "LayerNormalization": one("LayerNormalization", w(3, 4), w(3, 4), axis=1),
    "GroupNormalization": Case(
        [("GroupNormalization", ["x", "s", "b"], ["y"], {"num_groups": 2})],
        shape=(4, 3, 2), constants={"s": w(4), "b": w(4)}, opset=21,
    ),
    "Conv": one("Conv", w(3, 2, 3, 3, 3), w(3), shape=CUBE, pads=[1] * 6),
    "Conv/strides": one("Conv", w(6, 2, 3, 2, 3), shape=SPACE, strides=[2, 2, 3], group=2,
                        pads=[1, 0, 2, 1, 1, 0]),
    "Conv/dilations": one("Conv", w(4, 2, 2, 3, 2), shape=SPACE, dilations=[2, 1, 3], group=2),
    "Conv/wide": one("Conv", w(2, 2, 1, 1, 1), shape=CUBE, pads=[1] * 6),
    "Conv/skips": one("Conv", w(2, 2, 1, 1, 1), shape=CUBE, strides=[3, 3, 3]),
    "Conv/same": one("Conv", w(2, 2, 3, 3, 3), shape=CUBE, strides=[2, 2, 2],
                     auto_pad="SAME_UPPER"),
    "ConvTranspose": one("ConvTranspose", w(2, 3, 3, 2, 2), w(3), shape=CUBE, strides=[2, 2, 1],
                         pads=[1, 0, 0, 0, 1, 0], output_padding=[1, 0, 0]),
    "MaxPool": one("MaxPool", shape=CUBE, kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    "MaxPool/rest": one("MaxPool", shape=(2, 5, 5, 4), kernel_shape=[2, 2, 1], strides=[2, 3, 2]),
    "MaxPool/overlap": one("MaxPool", shape=(2, 5, 5, 4), kernel_shape=[3, 3, 3],
                           strides=[2, 2, 1], pads=[1] * 6),
    "AveragePool": one("AveragePool", shape=CUBE, kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    "AveragePool/slab": one("AveragePool", shape=CUBE, kernel_shape=[1, 1, 2], strides=[1, 1, 2]),
    "AveragePool/pads": one("AveragePool", shape=(2, 5, 5, 4), kernel_shape=[3, 3, 3],
                            strides=[2, 2, 1], pads=[1] * 6),
    "AveragePool/counted": one("AveragePool", shape=(2, 5, 5, 4), kernel_shape=[3, 2, 3],
                               strides=[2, 2, 2], pads=[1, 0, 1, 1, 1, 1], count_include_pad=1,
                               ceil_mode=1),
}  # fmt: skip
# What the reference evaluator does not compute in double precision, in three dimensions or with
# negative pads: onnxruntime alone.
RUNTIME_ONLY = (
    "MaxPool", "AveragePool", "GlobalMaxPool", "ConvTranspose", "Conv/strides", "Cast", "Erf",
    "Gelu", "Pad", "GroupNormalization",
)  # fmt: skip


def evaluator(model: onnx.ModelProto, dtype: Any) -> Callable[[list[str] | None, dict], list]:
    if dtype is np.float64:
        return ReferenceEvaluator(model).run
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run


def compare(case: Case, dtype: Any, step: float, tolerance: float) -> None:
    model = model_of(case, dtype)
    forward = evaluator(model, dtype)
    backward = evaluator(gradient_graph(model, []), dtype)
    # Well apart, so that no step crosses a tie.
    x = rng(1).permutation(np.linspace(-1.97, 2.03, BATCH * int(np.prod(case.shape))))
    x = (x + 2.5 if case.positive else x).reshape(BATCH, *case.shape).astype(dtype)
    y = forward(["logits"], {"x": x})[0]
    weights = rng(2).normal(size=y.shape).astype(dtype)
    found = backward(["grad_input"], {"x": x, "w_logits": weights})[0]
    assert found.shape == x.shape
    for seed in range(4):
        # One direction at a time: a wrong element anywhere changes the sum along it.
        direction = rng(10 + seed).normal(size=x.shape)
        ends = [
            forward(["logits"], {"x": (x + sign * step * direction).astype(dtype)})[0]
            for sign in (1, -1)
        ]
        numeric = float(((ends[0] - ends[1]).astype(float) * weights).sum() / (2 * step))
        analytic = float((found * direction).sum())
        scale = float(np.linalg.norm(found) + 1)
        assert abs(numeric - analytic) < tolerance * scale, (numeric, analytic)


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith(RUNTIME_ONLY)])
def test_rule_equals_central_differences(name: str) -> None:
    compare(CASES[name], np.float64, 1e-6, 1e-6)


@pytest.mark.parametrize("name", list(CASES))
def test_onnxruntime_computes_the_same(name: str) -> None:
    compare(CASES[name], np.float32, 2e-3, 5e-3)


def test_every_rule_has_a_case() -> None:
    used = {op for case in CASES.values() for op, *_ in case.nodes}
    silent = {"Shape", "Size", "Sign", "Ceil", "Round", "ArgMax", "ArgMin", "Equal",
              "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN",
              "ConstantOfShape"}  # fmt: skip
    assert set(RULES) - used - silent == set()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (one("Cosh"), "op Cosh"),
        (one("Pad", np.array([0, 1, 0, 0, 1, 0]), mode="reflect"), "reflect"),
        (one("Gather", np.array([1, 1]), axis=1), "twice"),
        (Case([("Conv", ["a", "x"], ["y"], {})], (2, 3), {"a": w(2, 2, 5)}), "kernel"),
    ],
)
def test_what_has_no_derivative_is_refused_by_name(case: Case, words: str) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        gradient_graph(model_of(case, np.float32), [])
    assert caught.value.code == "no_derivative"
    assert "'y'" in caught.value.message
