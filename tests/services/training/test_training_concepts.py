"""Concept supervision: feature heads learn from the labelled lesions, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_fit import TRAINING, VALIDATION, same, small

from models.cnn.lightning_module import concept_loss
from models.errors import InputError
from services.training.fit import FitResult, fit
from services.training.profiles import Profile, profile

LABELLED = np.arange(0, 24, 2)


def lesions(flip: np.ndarray | None = None):  # type: ignore[no-untyped-def]
    """Two features: is the class 0; is it not. flip: lesions with both turned round."""
    features = np.stack([TRAINING.classes == 0, TRAINING.classes != 0], axis=1).astype(np.float32)
    if flip is not None:
        features[flip] = 1 - features[flip]
    return replace(TRAINING, features=features)


def run(folder: Path, training, config: Profile) -> FitResult:  # type: ignore[no-untyped-def]
    found = fit(training, VALIDATION, config, folder, classes=3, seed=1, key="k", labelled=LABELLED)
    assert found is not None
    return found


def test_heads_learn_from_labelled_lesions_alone(tmp_path: Path) -> None:
    taught = small(12).model_copy(update={"concepts": 1.0})
    one = run(tmp_path / "1", lesions(), taught)
    assert list(one.network.taps)[-2:] == ["fc", "concept"]
    assert one.network.taps["concept"] == 8 + 2
    x = torch.from_numpy(VALIDATION.bases[:, :, 4:28, 4:28, 4:28].copy())
    logit = one.network.outputs(x).taps["concept"][:, -2:].detach().numpy()
    true = VALIDATION.classes == 0
    assert logit[true, 0].mean() > logit[~true, 0].mean() + 0.2
    assert logit[true, 1].mean() < logit[~true, 1].mean() - 0.2

    unlabelled = np.setdiff1d(np.arange(24), LABELLED)
    assert same(one, run(tmp_path / "2", lesions(unlabelled), taught))
    assert not same(one, run(tmp_path / "3", lesions(LABELLED[:1]), taught))


def test_without_concepts_features_change_nothing(tmp_path: Path) -> None:
    plain = small(2)
    one, two = (run(tmp_path / n, lesions(f), plain) for n, f in (("1", None), ("2", LABELLED)))
    assert list(one.network.taps)[-1] == "fc"
    assert same(one, two)


def test_the_loss_counts_what_is_labelled() -> None:
    tap = torch.tensor([[9.0, 0.0, 2.0], [9.0, -1.0, 0.0]])
    nothing = torch.full((2, 2), float("nan"))
    assert concept_loss(tap, nothing) == 0
    some = torch.tensor([[1.0, float("nan")], [float("nan"), float("nan")]])
    assert concept_loss(tap, some) == pytest.approx(np.log(2.0))


def test_a_network_without_heads_is_named() -> None:
    assert profile("default", concepts=True).concepts > 0
    assert profile("default").concepts == 0
    with pytest.raises(InputError) as refusal:
        profile("wang2019", concepts=True)
    assert refusal.value.field == "concepts"
