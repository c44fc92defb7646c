"""BentoML's own ndarray API: nested JSON lists both ways, two threads."""

import os

os.environ["BENTOML_DO_NOT_TRACK"] = "True"

import bentoml
import numpy as np
from net import PLACES, PORT, Net


@bentoml.service(workers=1, threads=PLACES, logging={"access": {"enabled": False}})
class Classify:
    def __init__(self) -> None:
        self.net = Net()

    @bentoml.api
    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.net.scores(x.astype(np.float32, copy=False))


if __name__ == "__main__":
    from bentoml_peer import Classify as Imported  # BentoML's workers import it by this name

    Imported.serve_http(host="127.0.0.1", port=PORT)
