"""Fit a network with Lightning, so that the same command continues where it was stopped."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

from models.cnn.augment import AugmentedBatches, centre
from models.cnn.classifier import Classifier
from models.cnn.data import BalancedBatches, SplitArrays
from models.cnn.lightning_module import ClassifierTraining
from models.cnn.networks import build
from services.training.fit_record import (
    BEST,
    CHECKPOINT,
    CURVES,
    STATE,
    Record,
    earlier,
    read_curves,
    start_afresh,
)
from services.training.hardware import Hardware
from services.training.memory import keep_freed_memory
from services.training.profiles import Profile


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

    network: Classifier
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
    labelled: NDArray[np.int64] | None = None,
    resume: bool = True,
    bar: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    hardware: Hardware | None = None,
) -> FitResult | None:
    """Train to the end or continue to it. key: hash of configuration and data; another key starts
    afresh. labelled: training lesions that lend their features to the heads of a profile with
    concept supervision. bar: Lightning's rich progress bar. None in every process but the first of
    several.

    Raises Interrupted on Ctrl-C, InputError for hardware that is not there.

    On the same machine and hardware settings the weights depend on (key, seed) alone, however often
    the run was stopped between epochs: an epoch that was cut short is run again from its start.
    """
    hardware = hardware or Hardware()
    arguments = hardware.trainer_arguments()
    folder.mkdir(parents=True, exist_ok=True)
    state = earlier(folder, key, seed) if resume else {}
    _quiet()
    torch.set_num_threads(hardware.threads)
    keep_freed_memory()
    pl.seed_everything(seed, verbose=False)
    edge = profile.preprocessing.tensor_voxels
    features = _taught(training, profile, labelled)
    network = build(
        profile.architecture.model_copy(
            update={"concepts": 0 if features is None else features.shape[1]}
        ),
        training.bases.shape[1],
        classes,
        edge,
    )
    done = int(state.get("epochs", 0))
    record = Record(folder, key, seed, on_epoch)
    if not state.get("finished"):
        o = profile.optimisation
        steps = len(BalancedBatches(training.classes, o.batch, seed, 0))
        epochs = o.epochs_for(steps)
        module = ClassifierTraining(network, o, seed, steps, profile.concepts)
        callbacks: list[Callback] = [
            record,
            EarlyStopping(
                "val_loss", patience=o.patience_for(epochs), check_on_train_epoch_end=True
            ),
        ]
        if bar:
            callbacks.append(_Bar(leave=False))
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=bar,
            num_sanity_val_steps=0,
            gradient_clip_val=5.0,
            default_root_dir=folder,
            reload_dataloaders_every_n_epochs=1,
            **arguments,
        )
        if not state and trainer.is_global_zero:
            start_afresh(folder, key, seed)
        data = _Data(training, validation, profile, seed, features)
        checkpoint = str(folder / CHECKPOINT) if done else None
        _run(trainer, module, data, checkpoint, record)
        network = module.kept
        if trainer.is_global_zero:
            record.finish()
    if not hardware.first:
        return None
    state = json.loads((folder / STATE).read_text("utf-8"))
    network.load_state_dict(load_file(folder / BEST))
    network.to("cpu").eval().requires_grad_(False)
    return FitResult(
        network=network.to(memory_format=torch.contiguous_format),
        best_epoch=int(state["best_epoch"]),
        epochs=int(state["epochs"]),
        resumed_from=done,
        curves=read_curves(folder / CURVES),
    )


def _taught(
    training: SplitArrays, profile: Profile, labelled: NDArray[np.int64] | None
) -> NDArray[np.float32] | None:
    """What feature heads learn from, [n, F]: the labelled lesions', NaN for all others."""
    if not profile.concepts or labelled is None or training.features.shape[1] == 0:
        return None
    features = np.full(training.features.shape, np.nan, dtype=np.float32)
    features[labelled] = training.features[labelled]
    return features


class _Data(pl.LightningDataModule):
    """Fresh balanced, augmented batches every epoch; the plain centre views for validation.

    Of several processes each takes its share of every training batch, and validates everything.
    """

    def __init__(
        self,
        training: SplitArrays,
        validation: SplitArrays,
        profile: Profile,
        seed: int,
        features: NDArray[np.float32] | None,
    ) -> None:
        super().__init__()
        self.features = features
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
            phase_dropout=p.phase_dropout,
            features=self.features,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=2 * self.profile.optimisation.batch)


class _Bar(RichProgressBar):
    """Lightning's bar, counting epochs from one as people do."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


def _run(
    trainer: pl.Trainer,
    module: ClassifierTraining,
    data: _Data,
    checkpoint: str | None,
    record: Record,
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


def _quiet() -> None:
    """Lightning's hints and banners are for developers of trainings, not for those who run one."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if "lightning.pytorch.utilities.rank_zero" in sys.modules:
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
