"""One request that a client repeats, and how its answer is read."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_LENGTH = "Inference-Header-Content-Length"
Read = Callable[[bytes, Mapping[str, str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Endpoint:
    """POST `path` at 127.0.0.1:`port` with a body that is always the same.

    read(body, headers in lower case) -> the scores in the answer, flat.
    """

    port: int
    path: str
    body: bytes
    read: Read
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def ask(self) -> NDArray[np.float32]:
        """One request, for a look at the answer. Raises RuntimeError where it is refused."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            link.request("POST", self.path, self.body, dict(self.headers))
            answer = link.getresponse()
            data = answer.read()
        finally:
            link.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.url}: {answer.status} {data[:300]!r}")
        return self.read(data, {k.lower(): v for k, v in answer.getheaders()}).ravel()

    def written(self, folder: Path) -> Path:
        """The request as files for a client in another process; gives the JSON that names them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "body").write_bytes(self.body)
        (folder / "headers").write_text("".join(f"{k}: {v}\n" for k, v in self.headers.items()))
        about = folder / "request.json"
        about.write_text(
            json.dumps({"port": self.port, "path": self.path, "headers": dict(self.headers)})
        )
        return about


def raw(body: bytes, _: Mapping[str, str]) -> NDArray[np.float32]:
    """An answer that is nothing but float32."""
    return np.frombuffer(body, "<f4")


def oip(body: bytes, headers: Mapping[str, str]) -> NDArray[np.float32]:
    """The only tensor of a binary answer of the Open Inference Protocol."""
    return np.frombuffer(body[int(headers[HEADER_LENGTH.lower()]) :], "<f4")


def oip_endpoint(port: int, x: NDArray[np.float32], model: str = "classifier") -> Endpoint:
    """Scores of x [B, P, K, K, K] over REST, tensors as bytes both ways."""
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": list(x.shape),
                    "parameters": {"binary_data_size": x.nbytes},
                }
            ],
            "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
        },
        separators=(",", ":"),
    ).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Endpoint(port, f"/v2/models/{model}/infer", head + x.tobytes(), oip, headers)


def said(about: Path) -> dict[str, Any]:
    """What `written` wrote: port, path, headers, and the body's bytes."""
    found: dict[str, Any] = json.loads(about.read_text("utf-8"))
    return found | {"body": (about.parent / "body").read_bytes()}
