"""Several processes: one training, its batches shared out, the first process alone writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.cnn.augment import AugmentedBatches
from models.errors import InputError
from models.passes import PassRecipe
from models.voi import Preprocessing
from services.training.fit_record import BEST, CHECKPOINT, CURVES, STATE
from services.training.hardware import Hardware
from tests.services.training.test_training_fit import TRAINING

HERE = Path(__file__)
WORKER = """
import sys, pathlib
sys.path.insert(0, sys.argv[2])
import test_training_fit as t
from services.training.fit import fit
from services.training.hardware import Hardware
config = t.small(epochs=int(sys.argv[3]))
result = fit(t.TRAINING, t.VALIDATION, config, pathlib.Path(sys.argv[1]), classes=3, seed=1,
             key="k", hardware=Hardware("cpu"))
rank = __import__("os").environ["RANK"]
print(f"rank {rank}:", "helped" if result is None else f"epochs {result.epochs}", flush=True)
"""


def torchrun(folder: Path, script: Path, epochs: int) -> str:
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            str(script), str(folder), str(HERE.parent), str(epochs),
        ],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "worker.py"
    path.write_text(WORKER)
    return path


def test_torchrun_fits_once_and_again_the_same(script: Path, tmp_path: Path) -> None:
    said = torchrun(tmp_path / "a", script, epochs=2)
    assert "rank 0: epochs 2" in said
    assert "rank 1: helped" in said
    assert {p.name for p in (tmp_path / "a").iterdir()} == {BEST, CHECKPOINT, CURVES, STATE}
    assert json.loads((tmp_path / "a" / STATE).read_text())["finished"]
    torchrun(tmp_path / "b", script, epochs=2)
    first, second = (load_file(tmp_path / f / BEST) for f in "ab")
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_every_batch_is_shared_out_whole() -> None:
    def batches(rank: int, world: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(AugmentedBatches(
            TRAINING, 8, Preprocessing(), PassRecipe(), 1, 0, rank=rank, world=world
        ))  # fmt: skip

    alone, shares = batches(0, 1), [batches(r, 3) for r in range(3)]
    for step, (_, classes) in enumerate(alone):
        mixed = np.empty(len(classes), dtype=np.int64)
        for rank, share in enumerate(shares):
            mixed[rank::3] = share[step][1].numpy()
        np.testing.assert_array_equal(mixed, classes.numpy())
    # Other variations in each process, even of the same lesion.
    assert not torch.equal(batches(0, 1)[0][0][0], shares[0][0][0][0])


def test_hardware_says_what_the_trainer_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Hardware("cpu").trainer_arguments()
    assert (alone["devices"], alone["num_nodes"], alone["strategy"]) == (1, 1, "auto")
    assert alone["precision"] == "32-true"
    assert alone["deterministic"] is True
    several = Hardware("cpu", devices=2, nodes=3).trainer_arguments()
    assert (several["devices"], several["num_nodes"], several["strategy"]) == (2, 3, "ddp")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Hardware("cpu").world == (4, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no GPU"):
        Hardware("gpu").trainer_arguments()
