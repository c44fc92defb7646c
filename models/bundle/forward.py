r"""The forward half of a model, whatever runs it: what may be asked is checked here.

Forward --> OnnxClassifier --> OnnxModel (with gradients)
       \--> OpenVinoClassifier
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.bundle.tensors import asked, checked
from models.errors import BundleError
from models.model import ModelInfo


class Forward(ABC):
    """scores, logits, taps and maps of a classifier's graph; a runtime computes them in `_run`.

    known: the graph's outputs. file: its name in errors. Raises BundleError bundle_manifest where
    one that every model needs is missing.
    """

    def __init__(self, info: ModelInfo, known: Sequence[str], file: str) -> None:
        absent = [name for name in ("scores", "logits", *info.taps) if name not in known]
        if absent:
            raise BundleError(f"the graph has no {absent[0]!r}", code="bundle_manifest", field=file)
        self.info: ModelInfo = info
        self._outputs = list(known)

    @property
    @abstractmethod
    def runtime(self) -> str:
        """For the provenance, e.g. 'onnxruntime 1.20.0 cpu'."""

    @property
    def outputs(self) -> list[str]:
        """All names that `forward` can be asked for."""
        return list(self._outputs)

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """x [B, P, X, Y, Z] -> the asked outputs, nothing else is copied. Raises InputError."""
        x = checked(x, "x", (None, *self.info.input_shape))
        names = asked(outputs, self._outputs)
        return self._run(names, x) if names else {}

    @abstractmethod
    def _run(
        self, names: Sequence[str], x: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]: ...
