"""Seeds, checkpoints and resuming: the same path however often it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cnn.architecture import Architecture
from models.cnn.data import SplitArrays
from services.training.fit import BEST, CHECKPOINT, CURVES, STATE, FitResult, Interrupted, fit
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
        classes=classes.astype(np.int64),
        features=np.full((n, 14), np.nan, dtype=np.float32),
    )


def small(epochs: int = 4, patience: int = 12) -> Profile:
    base = profile("demo", epochs=epochs)
    return base.model_copy(
        update={
            "architecture": Architecture(channels=(4, 6, 8, 8), fc=8),
            "optimisation": base.optimisation.model_copy(update={"batch": 8, "patience": patience}),
        }
    )


TRAINING, VALIDATION = arrays(24, 0), arrays(12, 1)


def run(folder: Path, config: Profile | None = None, seed: int = 1, **more) -> FitResult:  # type: ignore[no-untyped-def]
    return fit(
        TRAINING, VALIDATION, config or small(), folder, classes=3, seed=seed, key="k", **more
    )


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
        deadline = time.monotonic() + 120
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
    assert other.resumed_from == 0


def test_a_damaged_state_file_starts_anew(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / STATE).write_text("{")
    assert run(tmp_path).resumed_from == 0


def test_early_stopping_ends_and_stays_ended(tmp_path: Path) -> None:
    config = small(epochs=60, patience=1)
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
