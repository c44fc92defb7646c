"""The training's curves as a picture: what a person looks at before any number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def plot_curves(curves: Sequence[Mapping[str, float]], best_epoch: int, path: Path) -> None:
    """Loss and validation accuracy over epochs, the chosen epoch marked, as PNG.

    curves: a row an epoch with epoch, train_loss, val_loss, val_accuracy. best_epoch: its index.
    """
    from matplotlib.figure import Figure  # no global state, no display

    epochs = [row["epoch"] for row in curves]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row["train_loss"] for row in curves], label="training")
    left.plot(epochs, [row["val_loss"] for row in curves], label="validation")
    left.set(xlabel="epoch", ylabel="loss", title="Loss")
    left.legend(frameon=False)
    right.plot(epochs, [row["val_accuracy"] for row in curves], color="tab:orange")
    right.set(xlabel="epoch", ylabel="accuracy", title="Validation accuracy", ylim=(0, 1))
    for axes in (left, right):
        axes.axvline(epochs[best_epoch], color="0.6", linestyle=":", label="chosen epoch")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
