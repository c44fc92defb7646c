"""Seeds, checkpoints and resuming: the same path however often it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from models.cnn.architecture import Architecture, Optimisation
from models.cnn.augment import AugmentedBatches
from models.cnn.data import SplitArrays
from models.cnn.lightning_module import ClassifierTraining
from models.cnn.networks import build
from models.passes import PassRecipe
from models.voi import Preprocessing
from services.training.fit import FitResult, Interrupted, fit
from services.training.fit_record import BEST, CHECKPOINT, CURVES, STATE
from services.training.profiles import Profile, profile


def arrays(n: int, seed: int) -> SplitArrays:
    """Random lesions whose class shows in one phase's brightness: learnable in a few epochs."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % 3
    bases = rng.normal(size=(n, 3, 32, 32, 32)).astype(np.float32) * 0.5
    bases[np.arange(n), classes, 8:24, 8:24, 8:24] += 1.0
    return SplitArrays(
        ids=tuple(f"l{i}" for i in range(n)),
        class_ids=tuple("abc"[c] for c in classes),
        bases=bases,
        sizes_mm=np.full((n, 3), 20.0),
        classes=classes.astype(np.int64),
        features=np.full((n, 14), np.nan, dtype=np.float32),
    )


def small(epochs: int = 4, **more: object) -> Profile:
    base = profile("demo", epochs=epochs)
    changes = {"batch": 8, "patience": 3.0, **more}
    return base.model_copy(
        update={
            "architecture": Architecture(channels=(4, 6, 8, 8), fc=8),
            "optimisation": base.optimisation.model_copy(update=changes),
        }
    )


TRAINING, VALIDATION = arrays(24, 0), arrays(12, 1)


def run(folder: Path, config: Profile | None = None, seed: int = 1, **more) -> FitResult:  # type: ignore[no-untyped-def]
    result = fit(
        TRAINING, VALIDATION, config or small(), folder, classes=3, seed=seed, key="k", **more
    )
    assert result is not None
    return result


def weights(result: FitResult) -> dict[str, torch.Tensor]:
    return result.network.state_dict()


def same(a: FitResult, b: FitResult) -> bool:
    pairs = zip(weights(a).values(), weights(b).values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def stop_after(epochs: int):  # type: ignore[no-untyped-def]
    """A listener that behaves as Ctrl-C once so many epochs are whole."""
    seen = []

    def listen(row: dict[str, float]) -> None:
        seen.append(row)
        if len(seen) == epochs:
            raise KeyboardInterrupt

    return listen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return run(tmp_path_factory.mktemp("whole"))


def test_same_seed_same_weights_and_another_seed_others(whole: FitResult, tmp_path: Path) -> None:
    assert same(whole, run(tmp_path / "again"))
    assert not same(whole, run(tmp_path / "other", seed=2))


def test_it_learns(whole: FitResult) -> None:
    assert whole.curves[-1]["train_loss"] < whole.curves[0]["train_loss"]
    assert [row["epoch"] for row in whole.curves] == [0, 1, 2, 3]


@pytest.mark.parametrize("at", [1, 3])
def test_resumed_after_ctrl_c_equals_uninterrupted(
    whole: FitResult, tmp_path: Path, at: int
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        run(tmp_path, on_epoch=stop_after(at))
    assert stopped.value.epochs == at
    assert signal.getsignal(signal.SIGINT) is before
    resumed = run(tmp_path)
    assert resumed.resumed_from == at
    assert same(whole, resumed)
    assert resumed.curves == whole.curves
    assert resumed.best_epoch == whole.best_epoch


def test_resumed_after_kill_equals_uninterrupted(whole: FitResult, tmp_path: Path) -> None:
    """A real process, killed with -9 within an epoch."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2])\n"
        "import test_training_fit as t, time\n"
        "t.run(pathlib.Path(sys.argv[1]), on_epoch=lambda row: time.sleep(0.5))\n"
    )
    here = Path(__file__)
    environment = os.environ | {"PYTHONPATH": str(here.parents[3]), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(here.parent)], env=environment
    )
    try:
        deadline = time.monotonic() + 300
        while _epochs(tmp_path) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    done = _epochs(tmp_path)
    assert 2 <= done < 4, "the process was to be killed midway"
    resumed = run(tmp_path)
    assert resumed.resumed_from == done
    assert same(whole, resumed)


def _epochs(folder: Path) -> int:
    try:
        return int(json.loads((folder / STATE).read_text())["epochs"])
    except FileNotFoundError:
        return 0


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    rows: list[dict[str, float]] = []
    again = run(tmp_path, on_epoch=rows.append)
    assert rows == []
    assert same(first, again)


def test_fresh_and_another_key_start_anew(tmp_path: Path) -> None:
    run(tmp_path)
    assert run(tmp_path, resume=False).resumed_from == 0
    other = fit(TRAINING, VALIDATION, small(), tmp_path, classes=3, seed=1, key="other")
    assert other is not None
    assert other.resumed_from == 0


def test_a_damaged_state_file_starts_anew(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / STATE).write_text("{")
    assert run(tmp_path).resumed_from == 0


def test_early_stopping_ends_and_stays_ended(tmp_path: Path) -> None:
    config = small(epochs=60, patience=1 / 60)
    first = run(tmp_path, config)
    assert first.epochs < 60
    assert first.best_epoch == first.epochs - 2
    assert run(tmp_path, config).epochs == first.epochs


def test_best_epoch_has_the_lowest_validation_loss(whole: FitResult) -> None:
    losses = [row["val_loss"] for row in whole.curves]
    assert whole.best_epoch == int(np.argmin(losses))


def test_files_hold_no_pickled_objects(tmp_path: Path) -> None:
    run(tmp_path, small(epochs=1))
    assert {p.name for p in tmp_path.iterdir()} == {BEST, CHECKPOINT, CURVES, STATE}
    loaded = torch.load(tmp_path / CHECKPOINT, weights_only=True)  # raises where objects are in it
    assert loaded["epoch"] == 0
    header = (tmp_path / CURVES).read_text().splitlines()[0]
    assert header == "epoch,learning_rate,train_accuracy,train_loss,val_accuracy,val_loss"


def test_nothing_on_screen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, small(epochs=1))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_epochs_follow_from_steps_and_the_size_of_the_cohort() -> None:
    o = Optimisation(steps=1000, min_epochs=20, patience=0.25)
    assert [o.epochs_for(n) for n in (4, 16, 64)] == [250, 62, 20]
    assert o.model_copy(update={"epochs": 7}).epochs_for(16) == 7
    assert [o.patience_for(n) for n in (100, 2)] == [25, 1]


def test_averaged_weights_are_kept_and_survive_a_stop(tmp_path: Path) -> None:
    config = small(average=0.9)
    averaged, plain = run(tmp_path / "averaged", config), run(tmp_path / "plain")
    # The same path through training, another result.
    assert [r["train_loss"] for r in averaged.curves] == [r["train_loss"] for r in plain.curves]
    assert not same(averaged, plain)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", config, on_epoch=stop_after(2))
    resumed = run(tmp_path / "stopped", config)
    assert same(averaged, resumed)
    assert averaged.curves == resumed.curves


def test_average_is_the_recurrence_it_says(tmp_path: Path) -> None:
    """One epoch of three steps: the average by hand, from the weights after each step."""
    seen: list[dict[str, torch.Tensor]] = []
    original = ClassifierTraining.on_train_batch_end

    class Watched(ClassifierTraining):
        def on_train_batch_end(self, *arguments):  # type: ignore[no-untyped-def]
            seen.append({k: v.clone() for k, v in self.network.state_dict().items()})
            original(self, *arguments)

    torch.manual_seed(0)
    network = build(small().architecture, 3, 3, 24)
    held = {k: v.clone() for k, v in network.state_dict().items()}
    module = Watched(network, small(epochs=1, average=0.9).optimisation, 0, 3)
    batches = AugmentedBatches(TRAINING, 8, Preprocessing(), PassRecipe(), 0, 0)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches)
    assert len(seen) == 3
    for step, new in enumerate(seen, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in held.items():
            if value.is_floating_point():
                held[name] = decay * value + (1 - decay) * new[name]
    for name, value in module.kept.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, held[name], rtol=1e-4, atol=1e-6)


def test_phase_dropout_changes_the_training(whole: FitResult, tmp_path: Path) -> None:
    config = small().model_copy(update={"phase_dropout": 0.5})
    dropped = run(tmp_path, config)
    assert not same(whole, dropped)
    assert same(dropped, run(tmp_path / "again", config))


def test_published_network_learns_under_its_own_optimisation(tmp_path: Path) -> None:
    base = profile("wang2019", epochs=2)
    few = base.architecture.model_copy(update={"channels": (4, 6, 6), "fc": 8})
    changes = {"batch": 6, "learning_rate": 0.01}
    config = base.model_copy(
        update={
            "architecture": few,
            "optimisation": base.optimisation.model_copy(update=changes),
        }
    )
    result = run(tmp_path, config)
    assert [row["learning_rate"] for row in result.curves] == [0.01, 0.01]
    assert result.curves[1]["train_loss"] < result.curves[0]["train_loss"]
    assert same(result, run(tmp_path / "again", config))
