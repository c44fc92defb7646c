"""A classifier alone on onnxruntime: what a quantised variant runs on. No gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.bundle.forward import Forward
from models.bundle.providers import Execution
from models.bundle.runtime_sessions import Session, version
from models.model import ModelInfo


class OnnxClassifier(Forward):
    """classifier.onnx, or a quantised form of it, in a session of onnxruntime. Thread-safe.

    file: its name in errors. Raises BundleError bundle_manifest.
    """

    def __init__(self, info: ModelInfo, data: bytes, execution: Execution, file: str) -> None:
        self.execution = execution
        self._session = Session(file, data, execution, fixed=True)
        super().__init__(info, [output.name for output in self._session.get_outputs()], file)

    @property
    def runtime(self) -> str:
        return f"onnxruntime {version()} {self.execution.provider}"

    def _run(self, names: Sequence[str], x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(names, self._session.run(names, {"x": x}), strict=True))
