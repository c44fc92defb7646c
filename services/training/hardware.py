"""What a training runs on: Lightning's accelerators, devices, nodes and precision.

Several processes are Lightning's and torchrun's business. Started by torchrun, the numbers of
devices and nodes are its own; started plainly with more than one device, Lightning starts the
other processes. The first process alone writes and goes on to the bundle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from models.errors import InputError


@dataclass(frozen=True)
class Hardware:
    """accelerator: 'auto' takes a GPU where there is one. devices: processes a node. precision:
    'auto' is mixed on a GPU (bfloat16 where it has it) and 32 bits on a CPU. threads: of torch.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "auto"
    threads: int = 1

    @property
    def kind(self) -> str:
        """'cpu', 'gpu' or 'mps', decided."""
        if self.accelerator != "auto":
            return self.accelerator
        return "gpu" if torch.cuda.is_available() else "cpu"

    @property
    def world(self) -> tuple[int, int]:
        """(devices a node, nodes); as torchrun says, where it started this process."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return self.devices, self.nodes
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local

    @property
    def first(self) -> bool:
        """Whether this process is the only one or the first of several."""
        return int(rank_zero_only.rank or 0) == 0

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments of lightning.pytorch.Trainer. Raises InputError where there is no such GPU."""
        if self.kind == "gpu" and not torch.cuda.is_available():
            raise InputError(
                "no GPU that torch can use",
                field="accelerator",
                found="gpu",
                expected="cpu or auto",
            )
        devices, nodes = self.world
        several = devices * nodes > 1
        return {
            "accelerator": self.kind,
            "devices": devices,
            "num_nodes": nodes,
            "strategy": "ddp" if several else "auto",
            "precision": self._precision(),
            "sync_batchnorm": several and self.kind == "gpu",
            # Some of CUDA's kernels have no deterministic form; they say so once and go on.
            "deterministic": True if self.kind == "cpu" else "warn",
            "use_distributed_sampler": False,
        }

    def _precision(self) -> str:
        if self.precision != "auto":
            return self.precision
        if self.kind != "gpu":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"

    def describe(self) -> dict[str, Any]:
        """For the record: what weights may depend on beside configuration, data and seed."""
        devices, nodes = self.world
        return {
            "accelerator": self.kind,
            "devices": devices,
            "nodes": nodes,
            "precision": self._precision(),
            "threads": self.threads,
        }
