"""What a fit leaves in its folder, written so that a kill at any moment leaves whole files.

last.ckpt (after every epoch), best.safetensors (lowest validation loss), curves.csv, fit.json
(what was fitted, and whether it is finished).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from safetensors.torch import save_file

from models.cnn.lightning_module import ClassifierTraining

CHECKPOINT, BEST, CURVES, STATE = "last.ckpt", "best.safetensors", "curves.csv", "fit.json"


class Record(Checkpoint):
    """After every epoch: one row of the curves, the best weights, the checkpoint, in this order.

    All processes keep the figures; the first one alone writes.
    """

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
        better = figures["val_loss"] < self.best_loss
        if better:
            self.best_loss, self.best_epoch = figures["val_loss"], trainer.current_epoch
        if trainer.is_global_zero:
            if better:
                kept = pl_module.kept.state_dict()
                weights = {k: v.detach().cpu().contiguous() for k, v in kept.items()}
                replace(self.folder / BEST, lambda path: save_file(weights, path))
            replace(self.folder / CURVES, lambda path: _write_curves(path, self.rows))
        # Every process takes part in saving; Lightning writes in the first.
        part = self.folder / f".{CHECKPOINT}.part"
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.folder / CHECKPOINT)  # noqa: PTH105 - atomic on every system
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
        write_json(self.folder / STATE, state)


def earlier(folder: Path, key: str, seed: int) -> dict[str, Any]:
    """What an earlier run of the same key left; empty where there is nothing to continue."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    needed = (CHECKPOINT, BEST)
    same = isinstance(state, dict) and (state.get("key"), state.get("seed")) == (key, seed)
    whole = same and state.get("epochs", 0) > 0 and all((folder / n).is_file() for n in needed)
    return state if whole else {}


def start_afresh(folder: Path, key: str, seed: int) -> None:
    """Remove what an earlier run left."""
    for name in (CHECKPOINT, BEST, CURVES, STATE):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / STATE, {"key": key, "seed": seed, "epochs": 0, "finished": False})


def read_curves(path: Path) -> list[dict[str, float]]:
    """curves.csv, a row an epoch."""
    with path.open(encoding="utf-8") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside, then rename."""
    partial = path.with_name(f".{path.name}.part")
    write(partial)
    os.replace(partial, path)  # noqa: PTH105 - atomic on every system


def write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2) + "\n"
    replace(path, lambda partial: partial.write_text(text, "utf-8"))


def _write_curves(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" for k, v in row.items()})
