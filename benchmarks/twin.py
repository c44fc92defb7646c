"""The torch network behind a bundle that was trained here: what Captum and autograd are run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from models.bundle.read import Bundle
from models.cnn.architecture import Architecture
from models.cnn.classifier import Classifier
from models.cnn.networks import build
from models.errors import BundleError

_PREFIX = "net."  # of the names that the exporter gave the weights


def torch_twin(bundle: Bundle) -> Classifier:
    """The network rebuilt from training.json with the weights of classifier.onnx, folded.

    Raises BundleError for a bundle whose network was not trained here.
    """
    config = bundle.training.get("config", {})
    if bundle.manifest.origin != "trained" or "architecture" not in config:
        raise BundleError("the network was trained elsewhere", code="no_twin", field="bundle")
    info = bundle.info
    network = build(
        Architecture.model_validate(config["architecture"]),
        len(info.phases), len(info.classes), info.input_shape[1],
    ).folded()  # fmt: skip
    held = {t.name: t for t in onnx.load_from_string(bundle.classifier).graph.initializer}
    weights = {
        name: torch.from_numpy(numpy_helper.to_array(held[_PREFIX + name]).copy())
        for name in network.state_dict()
    }
    network.load_state_dict(weights)
    return network.eval()


def target_of(network: Classifier, weights: Mapping[str, NDArray]) -> Callable[[Tensor], Tensor]:
    """x [B, P, K, K, K] -> the goal's target, [B]: what models.attribution attributes."""
    fixed = {k: torch.from_numpy(np.asarray(w, np.float32)) for k, w in weights.items()}

    def value(x: Tensor) -> Tensor:
        out = network.outputs(x)
        named = {"logits": out.logits, **out.taps}
        return torch.stack([named[k] @ w for k, w in fixed.items()]).sum(dim=0)

    return value
