"""mosec: its Rust front, two workers in processes of their own, raw bytes."""

import sys

from mosec import Server, Worker
from net import PLACES, PORT, Net


class Classify(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> bytes:
        return self.net.of_bytes(data)

    def serialize(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    sys.argv[1:] = [
        "--address", "127.0.0.1", "--port", str(PORT), "--timeout", "30000", "--log-level", "error",
    ]  # fmt: skip
    server = Server()
    server.append_worker(Classify, num=PLACES)
    server.run()
