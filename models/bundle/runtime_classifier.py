"""A classifier alone on onnxruntime: what a quantised variant runs on. No gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.bundle.providers import Execution
from models.bundle.runtime_sessions import Session, version
from models.bundle.tensors import asked, checked
from models.errors import BundleError
from models.model import ModelInfo


class OnnxClassifier:
    """classifier.onnx, or a quantised form of it, in a session of onnxruntime. Thread-safe.

    file: its name in errors. Raises BundleError bundle_manifest.
    """

    def __init__(self, info: ModelInfo, data: bytes, execution: Execution, file: str) -> None:
        self.info = info
        self._provider = execution.provider
        self._session = Session(file, data, execution)
        self._known = [output.name for output in self._session.get_outputs()]
        absent = [n for n in ("scores", "logits", *info.taps) if n not in self._known]
        if absent:
            raise BundleError(f"the graph has no {absent[0]!r}", code="bundle_manifest", field=file)

    @property
    def runtime(self) -> str:
        """For the provenance, e.g. 'onnxruntime 1.20.0 cpu'."""
        return f"onnxruntime {version()} {self._provider}"

    @property
    def outputs(self) -> list[str]:
        """All names that `forward` can be asked for."""
        return list(self._known)

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """x [B, P, X, Y, Z] -> the asked outputs, nothing else is copied. Raises InputError."""
        x = checked(x, "x", (None, *self.info.input_shape))
        names = asked(outputs, self._known)
        if not names:
            return {}
        return dict(zip(names, self._session.run(names, {"x": x}), strict=True))
