"""MLServer: two workers in processes of their own, Open Inference Protocol over REST.

Its REST door knows no binary tensors. Base64 in a BYTES tensor is the least that it can be sent.
"""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse
from net import PLACES, PORT, Net


class Classify(MLModel):
    async def load(self) -> bool:
        self.net = Net()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        body = Base64Codec.decode_input(payload.inputs[0])[0]
        found = self.net.of_bytes(body)
        return InferenceResponse(
            model_name=self.name,
            outputs=[Base64Codec.encode_output("scores", [found], use_bytes=False)],
        )


async def main() -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=PORT,
        grpc_port=PORT + 1,
        metrics_endpoint=None,
        parallel_workers=PLACES,
        load_models_at_startup=False,
    )
    server = MLServer(settings)
    await server.start(
        models_settings=[ModelSettings(name="net", implementation="mlserver_peer.Classify")]
    )


if __name__ == "__main__":
    asyncio.run(main())
