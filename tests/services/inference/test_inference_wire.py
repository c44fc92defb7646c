"""Both doors of Open Inference Protocol say the same, and its extensions over real clients."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as oip_grpc
import tritonclient.http as oip_http
import tritonclient.http.aio as oip_http_aio
import tritonclient.utils.shared_memory as shm
import zstandard
from fastapi import FastAPI
from tritonclient.utils import InferenceServerException

from models.bundle.runtime import OnnxModel, load_model
from services.common.compression import compressed
from services.common.problems import install
from services.inference.oip_codec import HEADER_LENGTH, Wanted, decode_request, encode_request
from services.inference.oip_extensions import extensions
from tests.support.front_server import Front

pytestmark = pytest.mark.system

CLASSES = 6  # of the tests' bundle
DOORS = {"http": oip_http, "grpc": oip_grpc}


@pytest.fixture(scope="module", params=list(DOORS))
def door(request: pytest.FixtureRequest, front: Front) -> Iterator[Any]:
    """The client library of a transport, with a client."""
    library = DOORS[request.param]
    address = {"http": front.url.removeprefix("http://"), "grpc": front.grpc}[request.param]
    with library.InferenceServerClient(address) as client:
        yield SimpleNamespace(name=request.param, library=library, client=client)


@pytest.fixture(scope="module")
def model(tiny_bundle) -> OnnxModel:
    return load_model(tiny_bundle)


@pytest.fixture(scope="module")
def x(model: OnnxModel) -> np.ndarray:
    shape = (2, *model.info.input_shape)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def _input(library: Any, name: str, value: np.ndarray, datatype: str = "FP32") -> Any:
    return library.InferInput(name, list(value.shape), datatype).set_data_from_numpy(value)


# -- the same faults, the same words ------------------------------------------------------------


def _named(library: Any, x: np.ndarray, name: str = "x", datatype: str = "FP32") -> list[Any]:
    return [_input(library, name, x, datatype)]


Faulty = Callable[[Any, np.ndarray], dict[str, Any]]
FAULTS: dict[str, tuple[Faulty, str, str, str]] = {
    "no such model": (
        lambda o, x: {"model_name": "nothing", "inputs": _named(o, x)},
        "404",
        "NOT_FOUND",
        "model: no such model; found nothing",
    ),
    "no such version": (
        lambda o, x: {"inputs": _named(o, x), "model_version": "7"},
        "404",
        "NOT_FOUND",
        "version: no such version; found 7",
    ),
    "no such input": (
        lambda o, x: {"inputs": _named(o, x, "y")},
        "400",
        "INVALID_ARGUMENT",
        "y: no such input",
    ),
    "twice": (
        lambda o, x: {"inputs": _named(o, x) * 2},
        "400",
        "INVALID_ARGUMENT",
        "x: the input stands twice",
    ),
    "nothing": (
        lambda o, x: {"inputs": []},
        "400",
        "INVALID_ARGUMENT",
        "inputs: no inputs",
    ),
    "missing": (
        lambda o, x: {
            "model_name": "gradients",
            "inputs": _named(o, np.ones((1, CLASSES), np.float32), "w_logits"),
        },
        "400",
        "INVALID_ARGUMENT",
        "x: the input is missing",
    ),
    "shape": (
        lambda o, x: {"inputs": _named(o, x[:, :1])},
        "400",
        "INVALID_ARGUMENT",
        "x: wrong shape; found [2, 1, 24, 24, 24]; expected [-1, 3, 24, 24, 24]",
    ),
    "empty": (
        lambda o, x: {"inputs": _named(o, x[:0])},
        "400",
        "INVALID_ARGUMENT",
        "x: wrong shape; found [0, 3, 24, 24, 24]",
    ),
    "NaN": (
        lambda o, x: {"inputs": _named(o, x * np.float32(np.nan))},
        "400",
        "INVALID_ARGUMENT",
        "x: NaN or infinite values",
    ),
    "datatype": (
        lambda o, x: {"inputs": _named(o, x[:, :, :2].astype(np.float64), datatype="FP64")},
        "400",
        "INVALID_ARGUMENT",
        "x: this datatype is not offered; found FP64; expected FP32, FP16, UINT8",
    ),
    "unscaled": (
        lambda o, x: {"inputs": _named(o, x.astype(np.uint8), datatype="UINT8")},
        "400",
        "INVALID_ARGUMENT",
        "x: UINT8 needs the parameter scale: value = u * scale + offset; found none",
    ),
    "scaled wrongly": (
        lambda o, x: {
            "inputs": _named(o, x.astype(np.uint8), datatype="UINT8"),
            "parameters": {"scale": 1, "offset": "none"},
        },
        "400",
        "INVALID_ARGUMENT",
        "x: UINT8 needs the parameter offset: value = u * scale + offset; found none",
    ),
    "too large once widened": (
        lambda o, x: {
            "inputs": _named(o, np.zeros((52, *x.shape[1:]), np.uint8), datatype="UINT8"),
            "parameters": {"scale": 1, "offset": 0},
        },
        "413",
        "RESOURCE_EXHAUSTED",
        "x: the tensor is too large; found [52, 3, 24, 24, 24]; expected at most 8.0 MiB as FP32",
    ),
    "no such output": (
        lambda o, x: {"inputs": _named(o, x), "outputs": [o.InferRequestedOutput("nope")]},
        "400",
        "INVALID_ARGUMENT",
        "outputs: no such output; found nope; expected one of scores, logits",
    ),
    "output datatype": (
        lambda o, x: {"inputs": _named(o, x), "parameters": {"output_datatype": "INT8"}},
        "400",
        "INVALID_ARGUMENT",
        "scores: this output datatype is not offered; found INT8; expected FP32, FP16",
    ),
    "classification": (
        lambda o, x: {
            "inputs": _named(o, x),
            "outputs": [o.InferRequestedOutput("conv1_map", class_count=2)],
        },
        "400",
        "INVALID_ARGUMENT",
        "conv1_map: classes need one number each; found 5 axes",
    ),
    "batch sizes": (
        lambda o, x: {
            "model_name": "gradients",
            "inputs": [
                *_named(o, x[:1]),
                *_named(o, np.ones((2, CLASSES), np.float32), "w_logits"),
            ],
        },
        "400",
        "INVALID_ARGUMENT",
        "w_logits: the batch sizes differ; found 2; expected 1",
    ),
    "no such region": (
        lambda o, x: {"inputs": [_shared(o, "x", x, "nowhere")]},
        "404",
        "NOT_FOUND",
        "x: no such shared memory region; found nowhere",
    ),
}


def _shared(library: Any, name: str, x: np.ndarray, region: str, offset: int = 0) -> Any:
    tensor = library.InferInput(name, list(x.shape), "FP32")
    return tensor.set_shared_memory(region, x.nbytes, offset)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_fault_in_the_same_words(
    door: Any, model: OnnxModel, x: np.ndarray, fault: str
) -> None:
    make, status, code, line = FAULTS[fault]
    arguments = {"model_name": "classifier"} | make(door.library, x)
    with pytest.raises(InferenceServerException) as caught:
        door.client.infer(**arguments)
    assert caught.value.message().startswith(line)
    expected = {"http": status, "grpc": f"StatusCode.{code}"}[door.name]
    assert caught.value.status() == expected


# -- shared memory ------------------------------------------------------------------------------


@pytest.fixture
def segment() -> Iterator[Callable[[int], tuple[Any, str]]]:
    """Makes segments with the real client library; they are gone afterwards."""
    made = []

    def make(size: int) -> tuple[Any, str]:
        key = f"lesionlens-test-{uuid.uuid4().hex}"
        made.append(shm.create_shared_memory_region("r", key, size))
        return made[-1], key

    yield make
    for handle in made:
        shm.destroy_shared_memory_region(handle)


def test_shared_memory(
    door: Any, model: OnnxModel, x: np.ndarray, segment: Callable[[int], tuple[Any, str]]
) -> None:
    client, library = door.client, door.library
    scores = model.forward(x, ["scores"])["scores"]
    given, key = segment(x.nbytes + 64)
    shm.set_shared_memory_region(given, [x], offset=64)
    taken, other = segment(scores.nbytes + 16)
    client.register_system_shared_memory("in", f"/{key}", x.nbytes, offset=64)
    client.register_system_shared_memory("out", other, scores.nbytes + 16)
    try:
        wanted = library.InferRequestedOutput("scores")
        wanted.set_shared_memory("out", scores.nbytes, offset=8)
        outputs = [wanted, library.InferRequestedOutput("logits")]
        result = client.infer("classifier", [_shared(library, "x", x, "in")], outputs=outputs)
        found = shm.get_contents_as_numpy(taken, np.float32, [scores.size + 4])
        np.testing.assert_array_equal(found[2:-2].reshape(scores.shape), scores)
        assert not found[:2].any()
        assert not found[-2:].any()
        del found  # a view of the segment
        logits = model.forward(x, ["logits"])["logits"]
        np.testing.assert_array_equal(result.as_numpy("logits"), logits, strict=True)
        if door.name == "http":
            about = result.get_output("scores")["parameters"]
            assert about["shared_memory_region"] == "out"
            assert about["shared_memory_byte_size"] == scores.nbytes
        wanted.set_shared_memory("out", scores.nbytes - 4)
        with pytest.raises(InferenceServerException, match="too small for this output"):
            client.infer("classifier", [_shared(library, "x", x, "in")], outputs=[wanted])
        wanted.set_shared_memory("out", scores.nbytes, offset=17)
        with pytest.raises(InferenceServerException, match="not within the shared memory"):
            client.infer("classifier", [_shared(library, "x", x, "in")], outputs=[wanted])
        with pytest.raises(InferenceServerException, match="not within the shared memory"):
            client.infer("classifier", [_shared(library, "x", x, "in", offset=1)])
        with pytest.raises(InferenceServerException, match="registered already"):
            client.register_system_shared_memory("in", key, 8)
        _status(door, {"in": (f"/{key}", x.nbytes, 64), "out": (other, scores.nbytes + 16, 0)})
        client.unregister_system_shared_memory("in")
        _status(door, {"out": (other, scores.nbytes + 16, 0)})
        with pytest.raises(InferenceServerException, match="no such shared memory region"):
            client.get_system_shared_memory_status("in")
    finally:
        client.unregister_system_shared_memory()
    _status(door, {})


def _status(door: Any, expected: dict[str, tuple[str, int, int]]) -> None:
    found = door.client.get_system_shared_memory_status()
    entries = found if door.name == "http" else [
        {"name": n, "key": r.key, "byte_size": r.byte_size, "offset": r.offset}
        for n, r in found.regions.items()
    ]  # fmt: skip
    assert {e["name"]: (e["key"], e["byte_size"], e["offset"]) for e in entries} == expected


@pytest.mark.parametrize("key", ["../etc/passwd", "/dev/shm/x", "sem.x", "not-there", ""])
def test_other_files_are_out_of_reach(door: Any, key: str) -> None:
    with pytest.raises(InferenceServerException):
        door.client.register_system_shared_memory("r", key, 8)
    _status(door, {})


def test_off_it_says_how_to_turn_it_on() -> None:
    app = FastAPI()
    core: Any = SimpleNamespace(regions=None)
    app.include_router(extensions(core), prefix="/v2")
    install(app)

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            memory = "/v2/systemsharedmemory"
            for answer in (
                await client.get(f"{memory}/status"),
                await client.post(f"{memory}/region/r/register", content=b"{"),
                await client.post(f"{memory}/unregister"),
            ):
                assert answer.status_code == 501
                assert "LESIONLENS_SHARED_MEMORY" in answer.json()["error"]

    asyncio.run(ask())


def test_a_registration_that_is_no_json(front: Front) -> None:
    url = f"{front.url}/v2/systemsharedmemory/region/r/register"
    for body in (b"", b"{", b"[]", b'{"key": "a"}', b'{"key": "a", "byte_size": "x"}'):
        assert httpx.post(url, content=body).status_code == 422


# -- compression, datatypes ---------------------------------------------------------------------


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
def test_the_clients_compression(
    front: Front,
    model: OnnxModel,
    x: np.ndarray,
    request_algorithm: str | None,
    response_algorithm: str | None,
) -> None:
    outputs = model.outputs
    wanted = [oip_http.InferRequestedOutput(name) for name in outputs]
    with oip_http.InferenceServerClient(front.url.removeprefix("http://")) as client:
        result = client.infer(
            "classifier",
            _named(oip_http, x),
            outputs=wanted,
            request_compression_algorithm=request_algorithm,
            response_compression_algorithm=response_algorithm,
        )
    for name, expected in model.forward(x, outputs).items():
        np.testing.assert_array_equal(result.as_numpy(name), expected, strict=True)


def test_zstd_both_ways(front: Front, model: OnnxModel, x: np.ndarray) -> None:
    tap = next(name for name in model.outputs if name.endswith("_map"))
    body, length = encode_request({"x": x}, [Wanted(tap, True)], binary=frozenset({"x"}))
    headers = {
        HEADER_LENGTH: str(length),
        "Content-Encoding": "zstd",
        "Accept-Encoding": "zstd",
    }
    url = f"{front.url}/v2/models/classifier/infer"
    with httpx.stream("POST", url, content=compressed(body, "zstd"), headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-encoding"] == "zstd"
        raw = b"".join(answer.iter_raw())
    whole = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    tail = whole[int(answer.headers[HEADER_LENGTH]) :]
    expected = model.forward(x, [tap])[tap]
    np.testing.assert_array_equal(np.frombuffer(tail, "<f4"), expected.ravel())


def test_a_bomb_is_refused(front: Front) -> None:
    """9 MiB of zeros, where 8 are the limit, in a few kilobytes."""
    url = f"{front.url}/v2/models/classifier/infer"
    for encoding in ("gzip", "deflate", "zstd"):
        bomb = compressed(bytes(9 << 20), encoding)
        assert len(bomb) < 1 << 20
        answer = httpx.post(url, content=bomb, headers={"Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["field"]) == (413, "body")
        assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("binary", [True, False])
def test_classes_in_words(door: Any, model: OnnxModel, x: np.ndarray, binary: bool) -> None:
    options = {"binary_data": binary} if door.name == "http" else {}
    wanted = [
        door.library.InferRequestedOutput("scores", class_count=2, **options),
        door.library.InferRequestedOutput("fc", class_count=1, **options),
        door.library.InferRequestedOutput("logits"),
    ]
    result = door.client.infer("classifier", _named(door.library, x), outputs=wanted)
    expected = model.forward(x, ["scores", "fc", "logits"])
    found = result.as_numpy("scores")
    assert found.shape == (len(x), 2)
    for row, words in zip(expected["scores"], found, strict=True):
        values = sorted(row, reverse=True)[:2]
        for value, word in zip(values, words, strict=True):
            said, index, label = (word.decode() if isinstance(word, bytes) else word).split(":")
            assert float(said) == pytest.approx(value, abs=1e-6)
            assert row[int(index)] == value
            assert label == model.info.classes[int(index)]
    (best,) = result.as_numpy("fc")[0]
    best = best.decode() if isinstance(best, bytes) else best
    assert int(best.split(":")[1]) == expected["fc"][0].argmax()
    assert best.count(":") == 1  # its numbers are of no class
    np.testing.assert_array_equal(result.as_numpy("logits"), expected["logits"], strict=True)


def test_datatypes(door: Any, model: OnnxModel, x: np.ndarray) -> None:
    client, library = door.client, door.library
    half = x.astype(np.float16)
    result = client.infer(
        "classifier",
        _named(library, half, datatype="FP16"),
        parameters={"output_datatype": "FP16"},
    )
    expected = model.forward(half.astype(np.float32), ["scores"])["scores"].astype(np.float16)
    np.testing.assert_array_equal(result.as_numpy("scores"), expected, strict=True)
    image = np.random.default_rng(5).integers(0, 256, x.shape, np.uint8)
    parameters = {"scale": 0.02, "offset": -2.5}
    result = client.infer(
        "classifier", _named(library, image, datatype="UINT8"), parameters=parameters
    )
    scaled = image * np.float32(0.02) + np.float32(-2.5)
    np.testing.assert_array_equal(
        result.as_numpy("scores"), model.forward(scaled, ["scores"])["scores"], strict=True
    )


def test_a_tensors_own_parameters_over_http(front: Front, model: OnnxModel, x: np.ndarray) -> None:
    image = np.random.default_rng(5).integers(0, 256, (1, *x.shape[1:]), np.uint8)
    tensor = {"name": "x", "datatype": "UINT8", "shape": list(image.shape)}
    message = {
        "inputs": [
            tensor | {"parameters": {"scale": 0.02, "offset": -2}, "data": image.ravel().tolist()}
        ],
        "outputs": [
            {"name": "scores", "parameters": {"datatype": "FP16"}},
            {"name": "logits"},
        ],
    }
    answer = httpx.post(f"{front.url}/v2/models/classifier/infer", json=message)
    scores, logits = answer.raise_for_status().json()["outputs"]
    assert (scores["datatype"], logits["datatype"]) == ("FP16", "FP32")
    scaled = image * np.float32(0.02) + np.float32(-2)
    expected = model.forward(scaled, ["scores", "logits"])
    assert scores["data"] == expected["scores"].astype(np.float16).ravel().tolist()
    assert logits["data"] == expected["logits"].ravel().tolist()


def test_http_by_asyncio(front: Front, model: OnnxModel, x: np.ndarray) -> None:
    async def ask() -> None:
        address = front.url.removeprefix("http://")
        async with oip_http_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("classifier"))["name"] == "classifier"
            wanted = [oip_http.InferRequestedOutput(name) for name in model.outputs]
            result = await client.infer(
                "classifier",
                _named(oip_http, x),
                outputs=wanted,
                request_compression_algorithm="gzip",
                response_compression_algorithm="deflate",
            )
        for name, expected in model.forward(x, model.outputs).items():
            np.testing.assert_array_equal(result.as_numpy(name), expected, strict=True)

    asyncio.run(ask())


def test_what_the_client_writes_is_what_we_read(x: np.ndarray) -> None:
    """Without a server: its body, through our codec."""
    body, length = oip_http.InferenceServerClient.generate_request_body(_named(oip_http, x))
    np.testing.assert_array_equal(decode_request(body, length).inputs["x"], x, strict=True)
