"""The networks that are served: the bundle given, the published one, and one that does nothing.

Cost ratios depend on how heavy the network is, so two are measured. The published network gets one
epoch on a few synthetic lesions by the project's own training: its weights mean nothing, its cost
is that of the published sizes. The null network reads one voxel and answers constants; its bundle
is the given one with other graphs, so what is left is the cost of serving.

    python -m benchmarks.networks published FOLDER      (needs torch; in a process of its own)
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle.manifest import (
    CLASSIFIER,
    GRADIENTS,
    MANIFEST,
    PARITY,
    content_hash,
    manifest_bytes,
)
from models.bundle.parts import ParitySample
from models.bundle.read import Bundle, read_bundle
from models.bundle.write import tensor_bytes

GIVEN, PUBLISHED, NULL = "given", "wang2019", "null"
NULL_EDGE, NULL_BATCH = 16, 4  # 4 x 3 x 16^3 float32 are 196,608 bytes with three phases
ROOT = Path(__file__).resolve().parents[1]
# What decides the published network's cost.
SOURCES = ("models/cnn", "models/graph", "models/bundle", "services/training", "proto/wire")


@dataclass(frozen=True)
class Network:
    """A bundle to serve. x: the payload, float32 [B, P, K, K, K], of a fixed seed."""

    name: str
    bundle: Bundle
    x: NDArray[np.float32]

    @property
    def onnx(self) -> Path:
        return self.bundle.path.resolve() / CLASSIFIER


def given(bundle: Bundle) -> Network:
    return Network(GIVEN, bundle, payload(bundle, 1))


def payload(bundle: Bundle, batch: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, *bundle.info.input_shape)).astype(np.float32)


def published(home: Path) -> Network:
    """The `wang2019` profile's network as a bundle under `home`, made where it is not there yet."""
    folder = home.resolve() / f"wang2019-{_digest()}"
    if not folder.is_dir():
        print("making a bundle of the published network (once, about a minute)", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "benchmarks.networks", "published", str(folder)],
            check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    bundle = read_bundle(folder)
    return Network(PUBLISHED, bundle, payload(bundle, 1))


def make_published(folder: Path) -> None:
    """Sixty lesions, one epoch, few passes: the real pipeline with everything but the net small."""
    from models.cohort.phantom.generate import generate
    from services.training.pipeline import train
    from services.training.profiles import profile

    small = profile(PUBLISHED, epochs=1).model_copy(
        update={
            "passes": 2, "reference_passes": 1, "pairs": 2, "bootstraps": 50, "trust": False,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wang2019-") as work:
        cohort = Path(work) / "cohort"
        generate(cohort, n=60, seed=7, splits=(36, 12, 12))
        made = train(cohort, Path(work) / "fit", small, 7, store=False)
        shutil.copytree(made.bundle, Path(work) / "bundle")
        (Path(work) / "bundle").rename(folder)


def null(source: Bundle, home: Path) -> Network:
    """`source` with graphs that do nothing and inputs of [*, P, 16, 16, 16], under `home`."""
    folder = home / f"null-{source.hash}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in source.path.iterdir():
        if file.name in source.manifest.files:
            shutil.copy(file, folder / file.name)
    shape = (len(source.manifest.phases), NULL_EDGE, NULL_EDGE, NULL_EDGE)
    widths = {"logits": len(source.manifest.classes), **source.manifest.taps}
    x = np.zeros((1, *shape), np.float32)
    sample = ParitySample(
        x=x,
        outputs={
            "scores": np.full((1, widths["logits"]), 1 / widths["logits"], np.float32),
            **{name: np.zeros((1, n), np.float32) for name, n in widths.items()},
        },
        weights={name: np.ones((1, n), np.float32) for name, n in widths.items()},
        gradients={
            "input": x,
            **{tap: np.zeros((1, n), np.float32) for tap, n in source.manifest.taps.items()},
        },
    )
    changed = {
        CLASSIFIER: null_classifier(shape, widths),
        GRADIENTS: null_gradients(shape, widths),
        PARITY: tensor_bytes(sample.to_tensors()),
    }
    for name, data in changed.items():
        (folder / name).write_bytes(data)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in changed.items()}
    unsigned = source.manifest.model_copy(
        update={
            "hash": "",
            "name": f"{source.manifest.name}-null",
            "architecture": NULL,
            "preprocessing": source.manifest.preprocessing
            | {"base_voxels": 32, "lesion_voxels": 64, "tensor_voxels": NULL_EDGE},
            "files": source.manifest.files | sums,
        }
    )
    manifest = unsigned.model_copy(update={"hash": content_hash(unsigned)})
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
    bundle = read_bundle(folder)
    return Network(NULL, bundle, payload(bundle, NULL_BATCH))


def null_classifier(shape: tuple[int, ...], widths: dict[str, int]) -> bytes:
    """x [batch, *shape] -> scores, logits and taps that do not depend on it."""
    from onnx import TensorProto, helper

    voxel = ["zero", "end", "axes"]
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Slice", ["flat", *voxel], ["voxel"]),
    ]
    held = [
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("end", TensorProto.INT64, [1], [1]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
    ]
    outputs = []
    for name, n in {"scores": widths["logits"], **widths}.items():
        level = 1 / n if name == "scores" else 0.0
        held.append(helper.make_tensor(f"{name}_w", TensorProto.FLOAT, [1, n], [0.0] * n))
        held.append(helper.make_tensor(f"{name}_b", TensorProto.FLOAT, [n], [level] * n))
        nodes.append(helper.make_node("Gemm", ["voxel", f"{name}_w", f"{name}_b"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    return _model(helper.make_graph(nodes, "null", [x], outputs, held))


def null_gradients(shape: tuple[int, ...], widths: dict[str, int]) -> bytes:
    """x and weights -> gradients that are zero."""
    from onnx import TensorProto, helper

    sizes = {"x": shape, **{f"w_{name}": (n,) for name, n in widths.items()}}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *size])
        for name, size in sizes.items()
    ]
    given = {
        "grad_input": "x", **{f"grad_{n}": f"w_{n}" for n in widths if n != "logits"}
    }  # fmt: skip
    nodes = [helper.make_node("Mul", [source, "nought"], [name]) for name, source in given.items()]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sizes[source]])
        for name, source in given.items()
    ]
    nought = helper.make_tensor("nought", TensorProto.FLOAT, [], [0.0])
    return _model(helper.make_graph(nodes, "null_gradients", inputs, outputs, [nought]))


def _model(graph: object) -> bytes:
    from onnx import checker, helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _digest() -> str:
    digest = hashlib.sha256()
    for source in SOURCES:
        for file in sorted((ROOT / source).rglob("*.py")):
            digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def facts(network: Network) -> dict[str, object]:
    """What a reader must know of a network that was measured."""
    manifest = network.bundle.manifest
    return {
        "bundle": manifest.hash,
        "architecture": manifest.architecture,
        "input_shape": list(network.x.shape),
        "payload_bytes": network.x.nbytes,
        "onnx_kb": round(network.onnx.stat().st_size / 1e3, 1),
    }


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "published":
        sys.exit("usage: python -m benchmarks.networks published FOLDER")
    make_published(Path(sys.argv[2]))
