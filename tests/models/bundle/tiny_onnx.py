"""A real classifier of a few hundred weights as ONNX graphs, built by hand, and parts around it.

    x -> conv1_map = relu(1x1x1 conv) -> conv1 = mean over space -> fc = relu(dense) -> logits

Expected values are computed in numpy, so onnxruntime is checked against something else.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.bundle.parts import BundleParts, ParitySample, Reference
from models.ood import OutOfDistributionScore, readout
from models.passes import PassRecipe
from models.probes.probeset import ProbeSet
from models.vocabulary import liver_mri
from models.voi import Preprocessing

P, K, CONV, FC, C = 3, 8, 5, 4, 6
SPEC = Preprocessing(lesion_voxels=32, base_voxels=16, tensor_voxels=K)


def weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (CONV, P, 1, 1, 1), "w1": (CONV, FC), "b1": (FC,), "w2": (FC, C)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def expected_outputs(x: NDArray, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    w = weights(seed)
    before = np.einsum("dp,npxyz->ndxyz", w["kernel"][..., 0, 0, 0], x.astype(np.float64))
    conv_map = np.maximum(before, 0)
    conv = conv_map.mean(axis=(2, 3, 4))
    fc = np.maximum(conv @ w["w1"] + w["b1"], 0)
    logits = fc @ w["w2"]
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    values = {
        "scores": e / e.sum(axis=1, keepdims=True),
        "logits": logits,
        "conv1": conv,
        "fc": fc,
        "conv1_map": conv_map,
    }
    return {name: value.astype(np.float32) for name, value in values.items()}


def expected_gradients(x: NDArray, given: dict[str, NDArray], seed: int = 0) -> dict[str, NDArray]:
    w, values = weights(seed), expected_outputs(x, seed)
    zero = {"logits": (len(x), C), "conv1": (len(x), CONV), "fc": (len(x), FC)}
    g = {name: given.get(name, np.zeros(shape)) for name, shape in zero.items()}
    at_fc = g["logits"] @ w["w2"].T + g["fc"]
    at_conv = (at_fc * (values["fc"] > 0)) @ w["w1"].T + g["conv1"]
    at_map = at_conv[:, :, None, None, None] / K**3 * (values["conv1_map"] > 0)
    found = {
        "input": np.einsum("ndxyz,dp->npxyz", at_map, w["kernel"][..., 0, 0, 0]),
        "conv1": at_conv,
        "fc": at_fc,
    }
    return {name: value.astype(np.float32) for name, value in found.items()}


_FORWARD = [
    ("Conv", ["x", "kernel"], "before"),
    ("Relu", ["before"], "conv1_map"),
    ("ReduceMean", ["conv1_map", "space"], "conv1", {"keepdims": 0}),
    ("MatMul", ["conv1", "w1"], "dense"),
    ("Add", ["dense", "b1"], "biased"),
    ("Relu", ["biased"], "fc"),
    ("MatMul", ["fc", "w2"], "logits"),
    ("Softmax", ["logits"], "scores", {"axis": 1}),
]
_BACKWARD = [
    *_FORWARD[:6],
    ("MatMul", ["w_logits", "w2t"], "from_logits"),
    ("Add", ["from_logits", "w_fc"], "grad_fc"),
    ("Sign", ["fc"], "fc_on"),
    ("Mul", ["grad_fc", "fc_on"], "at_dense"),
    ("MatMul", ["at_dense", "w1t"], "from_fc"),
    ("Add", ["from_fc", "w_conv1"], "grad_conv1"),
    ("Unsqueeze", ["grad_conv1", "space"], "raised"),
    ("Sign", ["conv1_map"], "map_on"),
    ("Mul", ["raised", "map_on"], "masked"),
    ("Div", ["masked", "voxels"], "at_map"),
    ("ConvTranspose", ["at_map", "kernel"], "grad_input"),
]


def graph(kind: str, seed: int = 0) -> bytes:
    """'classifier' or 'gradients' as the bytes of an ONNX file, dynamic batch."""
    w = weights(seed)
    constants = {
        **w,
        "w1t": w["w1"].T.copy(),
        "w2t": w["w2"].T.copy(),
        "space": np.array([2, 3, 4]),
        "voxels": np.array(float(K**3), dtype=np.float32),
    }
    image, lengths = ["batch", P, K, K, K], {"logits": C, "conv1": CONV, "fc": FC}
    inputs, outputs = {"x": image}, {}
    if kind == "classifier":
        steps = _FORWARD
        outputs = {"scores": ["batch", C], "conv1_map": ["batch", CONV, K, K, K]}
        outputs |= {name: ["batch", n] for name, n in lengths.items()}
    else:
        steps = _BACKWARD
        inputs |= {f"w_{name}": ["batch", n] for name, n in lengths.items()}
        outputs = {"grad_input": image}
        outputs |= {f"grad_{name}": ["batch", n] for name, n in lengths.items() if n != C}
    nodes = [helper.make_node(s[0], s[1], [s[2]], **(s[3] if len(s) > 3 else {})) for s in steps]
    used = {name for node in nodes for name in node.input}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            kind,
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in inputs.items()],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in outputs.items()],
            [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def images(n: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng([5, seed]).normal(size=(n, P, K, K, K)).astype(np.float32)


def parts(seed: int = 0, **changes: object) -> BundleParts:
    """Parts that belong together: probes, reference and OOD read the taps of this network."""
    vocabulary = liver_mri()
    rng = np.random.default_rng([9, seed])
    x = images(60, seed) + rng.normal(scale=0.5, size=(60, P, 1, 1, 1)).astype(np.float32)
    values = expected_outputs(x, seed)
    h = np.concatenate([values["conv1"], values["fc"]], axis=1)
    seen = readout(values, x, ["conv1", "fc"])
    features = vocabulary.feature_ids
    labels = (h @ rng.normal(size=(CONV + FC, len(features))) > 0.5).astype(float)
    classes = [vocabulary.class_ids[i] for i in values["logits"].argmax(axis=1)]
    given = {
        "logits": rng.normal(size=(4, C)).astype(np.float32),
        "conv1": rng.normal(size=(4, CONV)).astype(np.float32),
    }
    fields: dict[str, object] = {
        "name": "tiny",
        "architecture": "tiny",
        "trained_on": "phantom-test",
        "synthetic": True,
        "vocabulary": vocabulary,
        "taps": {"conv1": CONV, "fc": FC},
        "probe_taps": ["conv1", "fc"],
        "preprocessing": SPEC,
        "recipe": PassRecipe(),
        "temperature": 1.25,
        "classifier": graph("classifier", seed),
        "gradients": graph("gradients", seed),
        "probes": ProbeSet.fit(h[:20], labels[:20], h[:40], features, seed),
        "reference": Reference(
            h[:40],
            [f"lesion-{i:03d}" for i in range(40)],
            classes[:40],
            [[f for f, y in zip(features, row, strict=True) if y == 1] for row in labels[:40]],
        ),
        "ood": OutOfDistributionScore.fit(
            ["conv1", "fc"], seen[:40], seen[40:], 0.99, classes[:40]
        ),
        "parity": ParitySample(
            x[:4],
            {name: value[:4] for name, value in values.items()},
            given,
            expected_gradients(x[:4], given, seed),
        ),
        "training": {"seed": seed, "profile": "test", "n_train": 40},
        "evaluation": {},
    }
    return BundleParts(**{**fields, **changes})  # type: ignore[arg-type]
