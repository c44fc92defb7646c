"""Maps from the bundle's graphs against Captum on the torch network with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    Occlusion,
    Saliency,
)

from benchmarks.twin import target_of, torch_twin
from models.attribution.goal import Goal, Settings, centred_logit
from models.attribution.registry import METHODS
from models.bundle.read import Bundle, read_bundle
from models.bundle.runtime import OnnxModel, load_model
from models.cnn.classifier import Classifier

SETTINGS = Settings(steps=8, window=12, stride=12, cam_tap="conv1")


@pytest.fixture(scope="module")
def trained(tiny_bundle: Path) -> tuple[Bundle, OnnxModel, Classifier]:
    bundle = read_bundle(tiny_bundle)
    return bundle, load_model(bundle), torch_twin(bundle)


def images(bundle: Bundle) -> np.ndarray:
    """Training-like tensors: the parity sample, which the export drew from real lesions."""
    return bundle.parity.x[:2]


def goals(bundle: Bundle, x: np.ndarray) -> list[Goal]:
    rng = np.random.default_rng(1)
    tap = next(iter(bundle.info.taps))
    width = bundle.info.taps[tap]
    return [
        Goal({"logits": centred_logit(1, len(bundle.info.classes))}),
        Goal({"fc": rng.normal(size=bundle.info.taps["fc"]).astype(np.float32)}),
        Goal({tap: rng.normal(size=width).astype(np.float32)}, (0.5 * x).astype(np.float32)),
    ]


def by_captum(name: str, network: Classifier, x: torch.Tensor, goal: Goal) -> np.ndarray:
    value = target_of(network, goal.weights)
    base = torch.from_numpy(goal.reference(x[0].numpy()))[None]
    found: dict[str, Callable[[], torch.Tensor]] = {
        "gradient_x_input": lambda: InputXGradient(value).attribute(x) / x * (x - base),
        "integrated_gradients": lambda: IntegratedGradients(value).attribute(
            x, base, n_steps=SETTINGS.steps, method="riemann_middle"
        ),
        "occlusion": lambda: (
            Occlusion(value).attribute(x, (1, 12, 12, 12), strides=(1, 12, 12, 12), baselines=base)
            / 12**3
        ),
        "grad_cam": lambda: (
            LayerGradCam(value, network.blocks[0])  # type: ignore[index]
            .attribute(x, relu_attributions=True)
            .expand_as(x)
            / x.shape[1]
        ),
    }
    return found[name]().detach().numpy()[0]


@pytest.mark.parametrize(
    "name", ["gradient_x_input", "integrated_gradients", "occlusion", "grad_cam"]
)
def test_same_maps_as_captum(name: str, trained: tuple[Bundle, OnnxModel, Classifier]) -> None:
    bundle, model, network = trained
    errors = []
    for x in images(bundle):
        chosen = goals(bundle, x)
        for goal, ours in zip(chosen, METHODS[name](model, x, chosen, SETTINGS), strict=True):
            theirs = by_captum(name, network, torch.from_numpy(x)[None], goal)
            scale = float(np.linalg.norm(theirs))
            apart = float(np.linalg.norm(ours.map - theirs))
            if scale == 0:  # a map that is cut off below zero may be empty
                assert apart == 0
            else:
                errors.append(apart / scale)
    assert len(errors) >= 3
    assert np.median(errors) <= 1e-3


def test_smoothgrad_is_the_mean_of_captums_gradients(
    trained: tuple[Bundle, OnnxModel, Classifier],
) -> None:
    bundle, model, network = trained
    x = images(bundle)[0]
    goal = goals(bundle, x)[0]
    settings = Settings(steps=4, seed=3)
    ours = METHODS["smoothgrad"](model, x, [goal], settings)[0].map
    rng = np.random.default_rng([3, 0x5306])
    noise = rng.standard_normal((4, *x.shape), dtype=np.float32) * np.float32(0.1 * np.ptp(x))
    noisy = torch.from_numpy(x[None] + noise)
    slopes = Saliency(target_of(network, goal.weights)).attribute(noisy, abs=False).numpy()
    theirs = slopes.mean(axis=0) * x
    assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs)
