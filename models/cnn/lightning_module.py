"""The training loop's content: loss, learning rate, validation figures.

Everything random is a function of (seed, epoch, step), never of a stream's history, so a training
that was interrupted after an epoch and resumed walks the same path as one that was not.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional

from models.cnn.architecture import Optimisation
from models.cnn.classifier import Classifier


class ClassifierTraining(pl.LightningModule):
    """Batches are (x [B, P, K, K, K], classes [B]): augmented in training, plain in validation.

    With feature heads training batches have features [B, F] too: 1, 0, or NaN where a lesion is not
    labelled; concept_weight is that of their mean cross-entropy beside the class's.
    """

    def __init__(
        self,
        network: Classifier,
        optimisation: Optimisation,
        seed: int,
        steps_an_epoch: int,
        concept_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last_3d)
        self.optimisation = optimisation
        self.seed, self.steps_an_epoch = seed, steps_an_epoch
        self.concept_weight = concept_weight
        self.epochs = optimisation.epochs_for(steps_an_epoch)
        self.average: Classifier | None = None
        if optimisation.average:
            self.average = deepcopy(self.network).requires_grad_(False)
        self._held: list[tuple[Tensor, Tensor]] = []

    @property
    def kept(self) -> Classifier:
        """The network that is validated, and whose weights are the result."""
        return self.network if self.average is None else self.average

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to one hundredth; or the same throughout."""
        o = self.optimisation
        if o.schedule == "constant":
            return o.learning_rate
        total = self.epochs * self.steps_an_epoch
        warm = max(1, round(total * o.warm_up))
        if step < warm:
            return o.learning_rate * (step + 1) / warm
        along = min(1.0, (step - warm) / max(1, total - warm))
        return o.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        o = self.optimisation
        method = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[o.method]
        return method(self.network.parameters(), lr=o.learning_rate, weight_decay=o.weight_decay)

    def training_step(self, batch: tuple[Tensor, ...], index: int) -> Tensor:
        x, classes, *features = batch
        step = self.current_epoch * self.steps_an_epoch + index
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # type: ignore[union-attr]
            group["lr"] = self.learning_rate(step)
        # Dropout draws from torch's own stream, which others draw from too: set it at each step.
        torch.manual_seed(self.seed * 1_000_003 + step * self.trainer.world_size + self.global_rank)
        if self.concept_weight:
            logits, taps, _ = self.network.outputs(x)
        else:
            logits = self.network(x)
        loss = functional.cross_entropy(
            logits, classes, label_smoothing=self.optimisation.label_smoothing
        )
        if self.concept_weight:
            loss = loss + self.concept_weight * concept_loss(taps["concept"], features[0])
        hits = (logits.argmax(dim=1) == classes).float().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(classes))
        self.log("train_accuracy", hits, on_step=False, on_epoch=True, batch_size=len(classes))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the running average; it starts from noise, so it follows faster at first."""
        if self.average is None:
            return
        step = self.current_epoch * self.steps_an_epoch + batch_idx + 1
        decay = min(self.optimisation.average, (1 + step) / (10 + step))
        with torch.no_grad():
            new = self.network.state_dict()
            for name, held in self.average.state_dict().items():
                if held.is_floating_point():
                    held.lerp_(new[name], 1 - decay)
                else:
                    held.copy_(new[name])

    def on_validation_epoch_start(self) -> None:
        self._held = []

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        x, classes = batch
        self._held.append((self.kept(x).float(), classes))

    def on_validation_epoch_end(self) -> None:
        logits = torch.cat([a for a, _ in self._held])
        classes = torch.cat([b for _, b in self._held])
        self._held = []
        accuracy = (logits.argmax(dim=1) == classes).float().mean()
        self.log("val_loss", functional.cross_entropy(logits, classes), prog_bar=True)
        self.log("val_accuracy", accuracy, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Only tensors and plain values may be in a checkpoint: it is loaded with weights_only.
        checkpoint["lesionlens"] = {"seed": self.seed, "steps_an_epoch": self.steps_an_epoch}


def concept_loss(tap: Tensor, features: Tensor) -> Tensor:
    """Mean cross-entropy of the feature heads, the last F units of `tap` [B, D].

    features: [B, F], NaN not labelled; a batch without any label costs nothing.
    """
    known = torch.isfinite(features)
    target = torch.where(known, features, torch.zeros_like(features))
    each = functional.binary_cross_entropy_with_logits(
        tap[:, -features.shape[1] :], target, reduction="none"
    )
    return (each * known).sum() / known.sum().clamp(min=1)
