"""The peers: name -> environment, script, and the request that fits it best.

A new peer is a script in this folder and an entry of PEERS.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.load.endpoint import Endpoint, raw

HERE = Path(__file__).parent
BINARY = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Peer:
    """requirements: of its environment. endpoint(port, x) -> the request that carries x."""

    name: str
    package: str
    requirements: str
    script: str
    endpoint: Callable[[int, NDArray[np.float32]], Endpoint]
    note: str

    @property
    def path(self) -> Path:
        return HERE / self.script


def _bytes_to(path: str) -> Callable[[int, NDArray[np.float32]], Endpoint]:
    return lambda port, x: Endpoint(port, path, x.tobytes(), raw, BINARY)


def _mlserver(port: int, x: NDArray[np.float32]) -> Endpoint:
    tensor = {
        "name": "x",
        "datatype": "BYTES",
        "shape": [1, 1],
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(x.tobytes()).decode()],
    }
    body = json.dumps({"inputs": [tensor]}).encode()
    return Endpoint(port, "/v2/models/net/infer", body, _from_base64, JSON)


def _from_base64(body: bytes, _: Mapping[str, str]) -> NDArray[np.float32]:
    found: Any = json.loads(body)["outputs"][0]["data"]
    return np.frombuffer(base64.b64decode(found[0]), "<f4")


def _bentoml(port: int, x: NDArray[np.float32]) -> Endpoint:
    body = json.dumps({"x": x.tolist()}).encode()
    return Endpoint(port, "/predict", body, _from_lists, JSON)


def _from_lists(body: bytes, _: Mapping[str, str]) -> NDArray[np.float32]:
    return np.asarray(json.loads(body), np.float32)


PEERS: Mapping[str, Peer] = {
    p.name: p
    for p in (
        Peer("fastapi", "fastapi", "http", "fastapi_uvicorn.py", _bytes_to("/predict"),
             "uvicorn with uvloop and httptools, one process, two threads, raw float32"),
        Peer("litserve", "litserve", "http", "litserve_peer.py", _bytes_to("/predict"),
             "two worker processes, fast queue, raw float32"),
        Peer("mosec", "mosec", "http", "mosec_peer.py", _bytes_to("/inference"),
             "Rust front, two worker processes, raw float32"),
        Peer("mlserver", "mlserver", "mlserver", "mlserver_peer.py", _mlserver,
             "two worker processes, REST; base64, since it takes no binary tensors there"),
        Peer("bentoml", "bentoml", "bentoml", "bentoml_peer.py", _bentoml,
             "its ndarray API: nested JSON lists, one process, two threads"),
    )
}  # fmt: skip
