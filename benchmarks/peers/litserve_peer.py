"""LitServe: two workers in processes of their own, raw bytes (FastAPI's own `bytes` body)."""

from typing import Annotated

import litserve
from fastapi import Body, Response
from net import PLACES, PORT, Net


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.net = Net()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        return request

    def predict(self, x: bytes) -> bytes:
        return self.net.of_bytes(x)

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(), accelerator="cpu", workers_per_device=PLACES, timeout=60, fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False,
        access_log=False,
    )  # fmt: skip
