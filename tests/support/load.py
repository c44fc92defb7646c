"""Clients that keep asking a running service and note every answer, with its times."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """One request: began and ended in seconds since the epoch; bundle: who answered."""

    kind: str
    began: float
    ended: float
    bundle: str
    values: NDArray[np.float64]


@dataclass
class Crowd:
    """Threads that ask until told to stop; answers and failures of all of them together."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, kind: str, ask: Callable[[int], tuple[str, NDArray[np.float64]]]) -> None:
        """ask(number) -> (bundle of the answer, its numbers); whatever it raises is a failure."""

        def run() -> None:
            number = 0
            while not self._stop.is_set():
                began = time.time()
                try:
                    bundle, values = ask(number)
                    self.answers.append(Answer(kind, began, time.time(), bundle, values))
                except Exception as error:
                    self.failures.append(f"{kind}: {type(error).__name__}: {error}"[:300])
                number += 1

        thread = threading.Thread(target=run, name=kind, daemon=True)
        self._threads.append(thread)
        thread.start()

    def count(self, kind: str = "") -> int:
        return sum(a.kind.startswith(kind) for a in list(self.answers))

    def stop(self, seconds: float = 60) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(seconds)


def oip_body(x: NDArray[np.float32]) -> tuple[bytes, dict[str, str]]:
    """A binary inference request for 'scores' as JSON, and its headers."""
    head = {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": list(x.shape),
                "parameters": {"binary_data_size": x.nbytes},
            }
        ],
        "outputs": [{"name": "scores"}],
    }
    text = json.dumps(head).encode()
    return text + x.tobytes(), {"Inference-Header-Content-Length": str(len(text))}


def ask_oip(client: httpx.Client, body: bytes, headers: dict[str, str], version: str = "") -> Any:
    """(bundle, scores) of one inference; the version of the answer is the bundle's hash."""
    path = f"/versions/{version}" if version else ""
    answer = client.post(f"/v2/models/classifier{path}/infer", content=body, headers=headers)
    answer.raise_for_status()
    said = answer.json()
    assert said["model_version"] == said["parameters"]["bundle"]
    return said["model_version"], np.array(said["outputs"][0]["data"], np.float64)


def npy(voxels: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, voxels)
    return buffer.getvalue()
