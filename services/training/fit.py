"""Fit the network with Lightning, so that the same command continues where it was stopped.

In the output folder: last.ckpt (after every epoch), best.safetensors (lowest validation loss),
curves.csv, fit.json (what was fitted, and whether it is finished). All are written beside and
renamed, so a kill at any moment leaves a whole file.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, RichProgressBar
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, TensorDataset

from models.cnn.augment import AugmentedBatches, centre
from models.cnn.data import BalancedBatches, SplitArrays
from models.cnn.lightning_module import ClassifierTraining
from models.cnn.network import LesionNet
from services.training.profiles import Profile

CHECKPOINT, BEST, CURVES, STATE = "last.ckpt", "best.safetensors", "curves.csv", "fit.json"


class Interrupted(Exception):
    """Stopped by Ctrl-C; `epochs` whole epochs are kept."""

    def __init__(self, epochs: int) -> None:
        super().__init__(f"stopped after {epochs} epochs")
        self.epochs = epochs


@dataclass(frozen=True)
class FitResult:
    """The network with its best weights, and how it got there.

    curves: one row an epoch with epoch, learning_rate, train_loss, train_accuracy, val_loss,
    val_accuracy. resumed_from: epochs that an earlier run had finished (0: from scratch).
    """

    network: LesionNet
    best_epoch: int
    epochs: int
    resumed_from: int
    curves: list[dict[str, float]]


def fit(
    training: SplitArrays,
    validation: SplitArrays,
    profile: Profile,
    folder: Path,
    *,
    classes: int,
    seed: int,
    key: str,
    resume: bool = True,
    bar: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    threads: int = 1,
) -> FitResult:
    """Train to the end or continue to it. key: hash of configuration and data; another key starts
    afresh. bar: Lightning's rich progress bar. Raises Interrupted on Ctrl-C.

    On the same machine and thread count the weights depend on (key, seed) alone, however often the
    run was stopped between epochs: an epoch that was cut short is run again from its start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _state(folder, key, seed) if resume else {}
    if not state:
        for name in (CHECKPOINT, BEST, CURVES, STATE):
            (folder / name).unlink(missing_ok=True)
        _write_json(folder / STATE, {"key": key, "seed": seed, "epochs": 0, "finished": False})
    _quiet()
    torch.set_num_threads(threads)
    pl.seed_everything(seed, verbose=False)
    network = LesionNet(profile.architecture, training.bases.shape[1], classes)
    done = int(state.get("epochs", 0))
    record = _Record(folder, key, seed, on_epoch)
    if not state.get("finished"):
        o = profile.optimisation
        steps = len(BalancedBatches(training.classes, o.batch, seed, 0))
        module = ClassifierTraining(network, o, seed, steps)
        callbacks: list[Callback] = [
            record,
            EarlyStopping("val_loss", patience=o.patience, check_on_train_epoch_end=True),
        ]
        if bar:
            callbacks.append(_Bar(leave=False))
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=o.epochs,
            callbacks=callbacks,
            deterministic=True,
            logger=False,
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=bar,
            num_sanity_val_steps=0,
            gradient_clip_val=5.0,
            default_root_dir=folder,
            reload_dataloaders_every_n_epochs=1,
        )
        data = _Data(training, validation, profile, seed)
        checkpoint = str(folder / CHECKPOINT) if done else None
        _run(trainer, module, data, checkpoint, record)
        record.finish()
    state = json.loads((folder / STATE).read_text("utf-8"))
    network.load_state_dict(load_file(folder / BEST))
    network.eval().requires_grad_(False)
    return FitResult(
        network=network.to(memory_format=torch.contiguous_format),
        best_epoch=int(state["best_epoch"]),
        epochs=int(state["epochs"]),
        resumed_from=done,
        curves=_curves(folder / CURVES),
    )


class _Data(pl.LightningDataModule):
    """Fresh balanced, augmented batches every epoch; the plain centre views for validation."""

    def __init__(
        self, training: SplitArrays, validation: SplitArrays, profile: Profile, seed: int
    ) -> None:
        super().__init__()
        self.training, self.profile, self.seed = training, profile, seed
        x = centre(torch.from_numpy(validation.bases), profile.preprocessing)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        self.validation = TensorDataset(x, torch.from_numpy(validation.classes))

    def train_dataloader(self) -> AugmentedBatches:
        assert self.trainer is not None
        p = self.profile
        return AugmentedBatches(
            self.training,
            p.optimisation.batch,
            p.preprocessing,
            p.recipe,
            self.seed,
            self.trainer.current_epoch,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=2 * self.profile.optimisation.batch)


class _Bar(RichProgressBar):
    """Lightning's bar, counting epochs from one as people do."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


class _Record(Checkpoint):
    """After every epoch: one row of the curves, the best weights, the checkpoint, in this order."""

    def __init__(
        self,
        folder: Path,
        key: str,
        seed: int,
        on_epoch: Callable[[dict[str, float]], None] | None,
    ) -> None:
        self.folder, self.key, self.seed, self.on_epoch = folder, key, seed, on_epoch
        self.best_loss, self.best_epoch, self.epochs = float("inf"), -1, 0
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "rows": self.rows,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_loss, self.best_epoch = state_dict["best_loss"], state_dict["best_epoch"]
        self.epochs, self.rows = state_dict["epochs"], state_dict["rows"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ClassifierTraining)
        figures = {k: float(v) for k, v in trainer.callback_metrics.items()}
        row = {"epoch": float(trainer.current_epoch)}
        row["learning_rate"] = pl_module.learning_rate(
            (trainer.current_epoch + 1) * pl_module.steps_an_epoch - 1
        )
        row |= {k: figures[k] for k in sorted(figures)}
        self.rows.append(row)
        self.epochs = trainer.current_epoch + 1
        if figures["val_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = figures["val_loss"], trainer.current_epoch
            weights = {k: v.contiguous() for k, v in pl_module.network.state_dict().items()}
            _replace(self.folder / BEST, lambda path: save_file(weights, path))
        _replace(self.folder / CURVES, lambda path: _write_curves(path, self.rows))
        _replace(self.folder / CHECKPOINT, lambda path: trainer.save_checkpoint(path))
        self._save(finished=False)
        if self.on_epoch:
            self.on_epoch(row)

    def finish(self) -> None:
        self._save(finished=True)

    def _save(self, *, finished: bool) -> None:
        state = {
            "key": self.key,
            "seed": self.seed,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "best_val_loss": self.best_loss,
            "finished": finished,
        }
        _write_json(self.folder / STATE, state)


def _run(
    trainer: pl.Trainer,
    module: ClassifierTraining,
    data: _Data,
    checkpoint: str | None,
    record: _Record,
) -> None:
    """Lightning turns Ctrl-C into sys.exit and mutes SIGINT; here it becomes Interrupted."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except (SystemExit, KeyboardInterrupt):
        raise Interrupted(record.epochs) from None
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _state(folder: Path, key: str, seed: int) -> dict[str, Any]:
    """What an earlier run of the same key left; empty where there is nothing to continue."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    needed = (CHECKPOINT, BEST)
    same = isinstance(state, dict) and (state.get("key"), state.get("seed")) == (key, seed)
    whole = same and state.get("epochs", 0) > 0 and all((folder / n).is_file() for n in needed)
    return state if whole else {}


def _quiet() -> None:
    """Lightning's hints and banners are for developers of trainings, not for those who run one."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if "lightning.pytorch.utilities.rank_zero" in sys.modules:
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    partial = path.with_name(f".{path.name}.part")
    write(partial)
    os.replace(partial, path)  # noqa: PTH105 - atomic on every system


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2) + "\n"
    _replace(path, lambda partial: partial.write_text(text, "utf-8"))


def _write_curves(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


def _curves(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
