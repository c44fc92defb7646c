"""The sample that travels in the bundle, so that a server can check its own numbers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle.parts import ParitySample
from models.cnn.export import draw_weights, reference_outputs
from models.cnn.network import LesionNet
from models.cnn.reverse import ReverseNet, autograd_gradients

PARITY_SAMPLES = 4


def parity_sample(
    network: LesionNet, x: NDArray[np.float32], seed: int, count: int = PARITY_SAMPLES
) -> ParitySample:
    """The stored sample that every server compares itself with, computed by torch.

    Of the candidates x [n, P, K, K, K] those are taken on which the folded backward pass agrees
    best with autograd: no near-tie of a ReLU or pooling, so a difference elsewhere means a fault.
    """
    weights = draw_weights(network, len(x), seed)
    held = {k: torch.from_numpy(v) for k, v in weights.items()}
    truth = autograd_gradients(network, torch.from_numpy(x), held)
    taps = list(network.architecture.taps)
    with torch.no_grad():
        mine = ReverseNet(network)(torch.from_numpy(x), held["logits"], *(held[t] for t in taps))[0]
    gap = (mine - truth["input"]).flatten(1).norm(dim=1) / truth["input"].flatten(1).norm(dim=1)
    best = torch.argsort(gap, stable=True)[:count].sort().values.numpy()
    outputs = reference_outputs(network, torch.from_numpy(x[best]))
    return ParitySample(
        x=x[best],
        outputs={k: outputs[k] for k in ("scores", "logits", *taps)},
        weights={k: v[best] for k, v in weights.items()},
        gradients={k: v.numpy()[best] for k, v in truth.items()},
    )
