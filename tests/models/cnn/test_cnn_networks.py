"""The published network, ensembles, and the chain of taps that every architecture is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.cnn.architecture import Architecture
from models.cnn.classifier import Classifier
from models.cnn.ensemble import Ensemble
from models.cnn.export import classifier_outputs, export_classifier, export_gradients, open_session
from models.cnn.networks import NETWORKS, build
from models.cnn.parity import check_parity, parity, parity_sample
from services.training.profiles import profile

SMALL = Architecture(channels=(5, 6, 7), kernels=(3, 3, 3), pool=(True, True, False), fc=9)
PUBLISHED = profile("wang2019").architecture
FEW = PUBLISHED.model_copy(update={"channels": (4, 6, 5), "fc": 7})


def settled(architecture: Architecture, seed: int) -> Classifier:
    """Random weights, and BatchNorm statistics that are not the trivial ones."""
    torch.manual_seed(seed)
    net = build(architecture, 3, 4, 24)
    net.train()
    for _ in range(3):
        net(torch.randn(8, 3, 24, 24, 24) * 1.5 + 0.3)
    return net.eval()


def samples(n: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3, 24, 24, 24)).astype(np.float32)


CASES = {
    "lesionnet": lambda: settled(SMALL, 0),
    "feature heads": lambda: settled(SMALL.model_copy(update={"concepts": 3}), 0),
    "wang2019": lambda: settled(FEW, 0),
    "ensemble": lambda: Ensemble([settled(SMALL, s) for s in (0, 1, 2)]).eval(),
    "published ensemble": lambda: Ensemble([settled(FEW, s) for s in (0, 1)]).eval(),
}


@pytest.fixture(scope="module", params=list(CASES))
def net(request: pytest.FixtureRequest) -> Classifier:
    return CASES[request.param]()


def test_published_sizes() -> None:
    net = build(PUBLISHED, 3, 6, 24).eval()
    assert set(NETWORKS) == {"lesionnet", "wang2019"}
    out = net.outputs(torch.zeros(2, 3, 24, 24, 24))
    shapes = {k: tuple(v.shape[1:]) for k, v in out.maps.items()}
    assert shapes == {
        "conv1": (192, 24, 24, 12),  # 64 filters for each of three phases
        "conv2": (128, 10, 10, 5),
        "conv3": (128, 8, 8, 4),
    }
    assert net.taps == {"conv1": 192, "conv2": 128, "conv3": 128, "fc": 100}
    assert out.logits.shape == (2, 6)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv3d)]
    assert [c.kernel_size for c in convolutions] == [(3, 3, 2)] * 3
    assert [c.out_channels for c in convolutions] == [192, 128, 128]


def test_published_stem_keeps_phases_apart() -> None:
    net = settled(FEW, 1)
    x = torch.from_numpy(samples(1))
    moved = x.clone()
    moved[:, 1] += 1.0
    before, after = net.outputs(x).maps["conv1"], net.outputs(moved).maps["conv1"]
    changed = (before != after).flatten(2).any(dim=2)[0]
    assert changed.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_published_input_has_slices_averaged_in_pairs() -> None:
    net = settled(FEW, 2)
    x = torch.from_numpy(samples(1))
    swapped = x.reshape(1, 3, 24, 24, 12, 2).flip(-1).reshape(x.shape)
    torch.testing.assert_close(net(x), net(swapped), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net(x), net(x.roll(1, dims=-1)), rtol=10, atol=10)
    assert not torch.allclose(net(x), net(x.roll(1, dims=-1)), atol=1e-4)


def test_taps_are_a_chain(net: Classifier) -> None:
    """Outputs say what forward says, maps average to taps, lengths are those declared."""
    x = torch.from_numpy(samples(3))
    with torch.no_grad():
        out = net.outputs(x)
        torch.testing.assert_close(net(x), out.logits)
        torch.testing.assert_close(net.folded()(x), out.logits, rtol=1e-4, atol=1e-5)
    assert {k: v.shape[1] for k, v in out.taps.items()} == net.taps
    assert list(out.maps) == net.map_taps
    for name, value in out.maps.items():
        torch.testing.assert_close(value.mean(dim=(2, 3, 4)), out.taps[name])


def test_exports_compute_what_torch_computes(net: Classifier, tmp_path: Path) -> None:
    classifier, gradients = tmp_path / "classifier.onnx", tmp_path / "gradients.onnx"
    export_classifier(net, classifier, 24)
    export_gradients(classifier, gradients)
    assert [o.name for o in open_session(classifier).get_outputs()] == classifier_outputs(net)
    figures = parity(net, classifier, gradients, samples(8), batches=(1, 5))
    check_parity(figures)
    assert figures["max_abs"] < 1e-4
    sample = parity_sample(net, gradients, samples(8), seed=0, count=3)
    assert sample.x.shape == (3, 3, 24, 24, 24)
    assert set(sample.gradients) == {"input", *net.taps}


def test_ensemble_is_the_mean_of_its_members() -> None:
    members = [settled(SMALL, s) for s in (0, 1, 2)]
    both = Ensemble(members).eval()
    x = torch.from_numpy(samples(2))
    with torch.no_grad():
        mean = torch.stack([m(x) for m in members]).mean(dim=0)
        torch.testing.assert_close(both(x), mean)
        taps = both.outputs(x).taps["conv2"]
        torch.testing.assert_close(
            taps, torch.cat([m.outputs(x).taps["conv2"] for m in members], dim=1)
        )
    assert both.taps == {k: 3 * v for k, v in members[0].taps.items()}
    assert both.name == "lesionnet-s-x3"


def test_ensemble_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="two"):
        Ensemble([settled(SMALL, 0)])
    with pytest.raises(ValueError, match="differ"):
        Ensemble([settled(SMALL, 0), settled(FEW, 0)])
