"""A model that waits for its server: retries with back-off while inference is down.

And what a worker keeps of it between two jobs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import Unavailable
from models.model import Model, ModelInfo
from models.recipes import Draw, Line

T = TypeVar("T")


class Kept:
    """The model of the last job, for the next: what it knows and its connection cost several
    requests to the service.

    connect(bundle) opens one. A job takes it out and gives it back only after a good end, so after
    any trouble the next one is opened afresh. One thread at a time.
    """

    def __init__(self, connect: Callable[[str], Model]) -> None:
        self._connect = connect
        self._kept: tuple[str, Model] | None = None
        self._out: Model | None = None

    def take(self, bundle: str) -> Model:
        """The one that was kept, or a new one."""
        kept, self._kept = self._kept, None
        fits = kept is not None and kept[0] == bundle
        self._out = kept[1] if kept is not None and fits else self._connect(bundle)
        return self._out

    def give_back(self, bundle: str) -> None:
        """The model taken last is in good order."""
        if self._out is not None:
            self._kept, self._out = (bundle, self._out), None


class PatientModel:
    """Wraps a Model. `connect` opens it, at first use and again after the server was away.

    waiting(error) is called before each pause and may raise to stop. Gives up with Unavailable
    after `patience` seconds without one answer.
    """

    def __init__(
        self,
        connect: Callable[[], Model],
        waiting: Callable[[Unavailable], None],
        patience: float,
    ) -> None:
        self._connect = connect
        self._waiting = waiting
        self._patience = patience
        self._model: Model | None = None
        self._bundle: str | None = None

    @property
    def info(self) -> ModelInfo:
        return self._try(lambda model: model.info)

    def forward(
        self, x: NDArray[np.float32], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        return self._try(lambda model: model.forward(x, outputs))

    def gradients(
        self,
        x: NDArray[np.float32],
        weights: Mapping[str, NDArray[np.float32]],
        wanted: Sequence[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        return self._try(lambda model: model.gradients(x, weights, wanted))

    def passes(
        self, draw: Draw, outputs: Sequence[str], weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        return self._try(lambda model: model.passes(draw, outputs, weights))

    def paths(
        self, line: Line, weights: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        return self._try(lambda model: model.paths(line, weights))

    def _try(self, call: Callable[[Model], T]) -> T:
        end = time.monotonic() + self._patience
        pause = 0.2
        while True:
            try:
                return call(self._opened())
            except (Unavailable, OSError, HTTPException) as found:
                # HTTPException: the server was killed in the middle of its answer.
                error = found if isinstance(found, Unavailable) else _cut()
                self._model = None
                if time.monotonic() + pause > end:
                    raise error from None
                self._waiting(error)
            time.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, 2.0)

    def _opened(self) -> Model:
        """The model; a server that comes back with another bundle is not the same model."""
        if self._model is None:
            model = self._connect()
            bundle = model.info.bundle
            if self._bundle is not None and bundle != self._bundle:
                raise Unavailable("the inference service changed its bundle", retry_after=5)
            self._bundle = bundle
            self._model = model
        return self._model


def _cut() -> Unavailable:
    return Unavailable(
        "the connection to the inference service was cut", code="inference_unavailable"
    )
