"""Open Inference Protocol over gRPC: the real clients, blocking, asyncio and streaming."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as oip
import tritonclient.grpc.aio as oip_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from models.bundle.runtime import OnnxModel, load_model
from services.inference.served import SERVED
from tests.support.front_server import Front

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def client(front: Front) -> Iterator[oip.InferenceServerClient]:
    with oip.InferenceServerClient(front.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def stub(front: Front) -> Iterator[Any]:
    with grpc.insecure_channel(front.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def model(tiny_bundle) -> OnnxModel:
    return load_model(tiny_bundle)


@pytest.fixture(scope="module")
def x(model: OnnxModel) -> np.ndarray:
    shape = (3, *model.info.input_shape)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def _input(name: str, value: np.ndarray, datatype: str = "FP32") -> oip.InferInput:
    return oip.InferInput(name, list(value.shape), datatype).set_data_from_numpy(value)


def test_health_and_metadata(
    client: oip.InferenceServerClient, front: Front, model: OnnxModel
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("classifier")
    assert client.is_model_ready("gradients", model.info.bundle)
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready("classifier", "7")
    with httpx.Client(base_url=front.url) as http:
        found = client.get_server_metadata(as_json=True)
        assert found == http.get("/v2").json()
        assert "system_shared_memory" in found["extensions"]
        for name in SERVED:
            over_http = http.get(f"/v2/models/{name}").json()
            over_http.pop("parameters")
            metadata = client.get_model_metadata(name, as_json=True)
            for tensor in [*metadata["inputs"], *metadata["outputs"]]:
                tensor["shape"] = [int(n) for n in tensor["shape"]]  # int64 is text in JSON
            assert metadata == over_http
            config = client.get_model_config(name).config
            over_http = http.get(f"/v2/models/{name}/config").json()
            assert config.max_batch_size == over_http["max_batch_size"]
            assert [list(i.dims) for i in config.input] == [i["dims"] for i in over_http["input"]]
            assert [i.name for i in config.output] == [i["name"] for i in over_http["output"]]
            said = {k: {"string_value": v.string_value} for k, v in config.parameters.items()}
            assert said == over_http["parameters"]
    index = client.get_model_repository_index(as_json=True)["models"]
    assert {m["name"] for m in index} == set(SERVED)
    assert {(m["version"], m["state"]) for m in index} == {(model.info.bundle, "READY")}


def test_standard_health(front: Front) -> None:
    with grpc.insecure_channel(front.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "inference.GRPCInferenceService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_every_output(client: oip.InferenceServerClient, model: OnnxModel, x: np.ndarray) -> None:
    wanted = [oip.InferRequestedOutput(name) for name in model.outputs]
    result = client.infer("classifier", [_input("x", x)], outputs=wanted, request_id="r-1")
    answer = result.get_response()
    assert (answer.id, answer.model_version) == ("r-1", model.info.bundle)
    assert answer.parameters["bundle"].string_param == model.info.bundle
    for name, expected in model.forward(x, model.outputs).items():
        np.testing.assert_array_equal(result.as_numpy(name), expected, strict=True)


def test_only_what_is_asked(client: oip.InferenceServerClient, x: np.ndarray) -> None:
    result = client.infer("classifier", [_input("x", x)])
    assert [o.name for o in result.get_response().outputs] == ["scores", "logits"]
    wanted = [oip.InferRequestedOutput("fc")]
    result = client.infer("classifier", [_input("x", x)], model_version="1", outputs=wanted)
    assert [o.name for o in result.get_response().outputs] == ["fc"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_messages(
    client: oip.InferenceServerClient, model: OnnxModel, x: np.ndarray, algorithm: str
) -> None:
    result = client.infer("classifier", [_input("x", x)], compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("scores"), model.forward(x, ["scores"])["scores"])


def test_gradients(client: oip.InferenceServerClient, model: OnnxModel, x: np.ndarray) -> None:
    weights = {"logits": np.eye(len(model.info.classes), dtype=np.float32)[:3]}
    wanted = [oip.InferRequestedOutput(name) for name in ("grad_input", "grad_fc")]
    inputs = [_input("x", x), _input("w_logits", weights["logits"])]
    result = client.infer("gradients", inputs, outputs=wanted)
    expected = model.gradients(x, weights)
    np.testing.assert_array_equal(result.as_numpy("grad_input"), expected["input"], strict=True)
    np.testing.assert_array_equal(result.as_numpy("grad_fc"), expected["fc"], strict=True)


def test_halves_and_bytes(
    client: oip.InferenceServerClient, model: OnnxModel, x: np.ndarray
) -> None:
    half = x.astype(np.float16)
    result = client.infer(
        "classifier", [_input("x", half, "FP16")], parameters={"output_datatype": "FP16"}
    )
    expected = model.forward(half.astype(np.float32), ["scores"])["scores"].astype(np.float16)
    np.testing.assert_array_equal(result.as_numpy("scores"), expected, strict=True)
    image = np.random.default_rng(5).integers(0, 256, x.shape, np.uint8)
    parameters = {"scale": 0.02, "offset": -2.5}
    result = client.infer("classifier", [_input("x", image, "UINT8")], parameters=parameters)
    scaled = image * np.float32(0.02) + np.float32(-2.5)
    np.testing.assert_array_equal(
        result.as_numpy("scores"), model.forward(scaled, ["scores"])["scores"], strict=True
    )


def test_typed_contents(stub: Any, model: OnnxModel, x: np.ndarray) -> None:
    message = pb.ModelInferRequest(model_name="classifier")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    tensor.contents.fp32_contents.extend(x.ravel())
    answer = stub.ModelInfer(message)
    assert not answer.raw_output_contents
    expected = model.forward(x, ["scores", "logits"])
    for output in answer.outputs:
        found = np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)
        np.testing.assert_array_equal(found, expected[output.name], strict=True)
    image = np.random.default_rng(5).integers(0, 256, x.shape, np.uint8)
    tensor.Clear()
    tensor.name, tensor.datatype = "x", "UINT8"
    tensor.shape.extend(x.shape)
    tensor.contents.uint_contents.extend(image.ravel().tolist())
    tensor.parameters["scale"].double_param = 0.02
    tensor.parameters["offset"].int64_param = -2
    (scores, _) = stub.ModelInfer(message).outputs
    scaled = image * np.float32(0.02) + np.float32(-2)
    np.testing.assert_array_equal(
        np.array(scores.contents.fp32_contents, np.float32),
        model.forward(scaled, ["scores"])["scores"].ravel(),
    )
    wanted = message.outputs.add(name="scores")
    wanted.parameters["datatype"].string_param = "FP16"
    assert len(stub.ModelInfer(message).raw_output_contents) == 1


def test_a_stream_of_batches_in_order(
    client: oip.InferenceServerClient, model: OnnxModel, x: np.ndarray
) -> None:
    """Sizes differ, so that later requests are done earlier; a wrong one does not end the rest."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    sizes = [40, 1, 2, 0, 24, 1]
    batches = [np.resize(x, (size, *x.shape[1:])) for size in sizes]
    for index, batch in enumerate(batches):
        client.async_stream_infer("classifier", [_input("x", batch)], request_id=str(index))
    for index, batch in enumerate(batches):
        result, error = answers.get(timeout=60)
        if not len(batch):
            assert "wrong shape" in str(error)
            continue
        assert error is None
        assert result.get_response().id == str(index)
        assert result.get_response().parameters["triton_final_response"].bool_param
        expected = model.forward(batch, ["scores"])["scores"]
        np.testing.assert_allclose(result.as_numpy("scores"), expected, atol=1e-6)
    client.stop_stream()


def test_asyncio(front: Front, model: OnnxModel, x: np.ndarray) -> None:
    async def ask() -> None:
        async with oip_aio.InferenceServerClient(front.grpc) as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(
                *(client.infer("classifier", [_input("x", x[i : i + 1])]) for i in range(3))
            )
            scores = np.concatenate([r.as_numpy("scores") for r in results])
            expected = [model.forward(x[i : i + 1], ["scores"])["scores"] for i in range(3)]
            np.testing.assert_array_equal(scores, np.concatenate(expected))

            async def requests() -> Any:
                for i in range(3):
                    yield {"model_name": "classifier", "inputs": [_input("x", x[i : i + 1])]}

            streamed = client.stream_infer(requests())
            found = [result.as_numpy("scores") async for result, error in streamed if not error]
            np.testing.assert_array_equal(np.concatenate(found), scores)

    asyncio.run(ask())


def test_statistics_on_both_transports(
    client: oip.InferenceServerClient, front: Front, x: np.ndarray
) -> None:
    def counted() -> Any:
        return client.get_inference_statistics("classifier").model_stats[0]

    before = counted()
    client.infer("classifier", [_input("x", x)])
    with pytest.raises(InferenceServerException):
        client.infer("classifier", [_input("x", x[:, :1])])
    after = counted()
    assert after.inference_count == before.inference_count + len(x)
    assert after.execution_count == before.execution_count + 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert after.inference_stats.fail.count == before.inference_stats.fail.count + 1
    assert after.last_inference >= before.last_inference > 0
    (over_http,) = httpx.get(f"{front.url}/v2/models/classifier/stats").json()["model_stats"]
    assert over_http["inference_count"] == after.inference_count
    assert over_http["version"] == after.version
    every = httpx.get(f"{front.url}/v2/models/stats").json()["model_stats"]
    assert {m["name"] for m in every} == set(SERVED)
    with pytest.raises(InferenceServerException, match="no such model"):
        client.get_inference_statistics("nothing")


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.load_model("classifier"),
        lambda c: c.unload_model("classifier"),
        lambda c: c.get_cuda_shared_memory_status(),
        lambda c: c.unregister_cuda_shared_memory(),
        lambda c: c.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 8),
        lambda c: c.get_trace_settings(),
        lambda c: c.get_log_settings(),
    ],
)
def test_what_is_not_here_says_so(
    client: oip.InferenceServerClient, front: Front, call: Any
) -> None:
    import tritonclient.http as oip_http

    with pytest.raises(InferenceServerException, match="not offered") as caught:
        call(client)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    with (
        oip_http.InferenceServerClient(front.url.removeprefix("http://")) as http,
        pytest.raises(InferenceServerException, match="not offered") as also,
    ):
        call(http)
    assert also.value.message() == caught.value.message()
    assert also.value.status() == "501"


def test_messages_are_bounded(stub: Any, x: np.ndarray) -> None:
    """8 MiB here: as it comes, and once decompressed."""
    message = pb.ModelInferRequest(model_name="classifier", raw_input_contents=[bytes(9 << 20)])
    message.inputs.add(name="x", datatype="FP32", shape=x.shape)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message, compression=compression)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metrics_count_calls(front: Front, client: oip.InferenceServerClient) -> None:
    assert client.is_server_live()
    page = httpx.get(f"{front.url}/metrics").text
    assert 'lesionlens_grpc_requests_total{code="OK",verb="ServerLive"}' in page
    assert 'lesionlens_grpc_requests_total{code="INVALID_ARGUMENT",verb="ModelInfer"}' in page
