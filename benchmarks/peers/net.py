"""The network as every peer runs it: same file, one thread a call, an array in, scores out.

Imported by the servers beside it, which run in environments of their own; so it needs nothing of
this project. PEER_ONNX: the file. PEER_SHAPE: the request's shape. PEER_PORT: where to listen.
"""

import json
import os

import numpy as np
import onnxruntime as ort

PORT = int(os.environ["PEER_PORT"])
SHAPE = tuple(json.loads(os.environ["PEER_SHAPE"]))
PLACES = int(os.environ.get("PEER_PLACES", "2"))  # calls side by side


class Net:
    """A session with the options that the service uses."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(
            os.environ["PEER_ONNX"], options, providers=["CPUExecutionProvider"]
        )
        self.scores(np.zeros(SHAPE, np.float32))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """x [B, P, K, K, K] -> [B, C]. May be called from several threads."""
        return self._session.run(["scores"], {"x": x})[0]

    def of_bytes(self, body: bytes) -> bytes:
        """Little-endian float32 in, the same out."""
        return self.scores(np.frombuffer(body, "<f4").reshape(SHAPE)).tobytes()
