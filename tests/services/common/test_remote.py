"""One contract, two models: what is above them can't tell which it talks to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import numpy as np
import pytest

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.errors import InputError, LensError, NotFound, Unavailable
from models.model import Model
from models.recipes import Draw, Line
from services.common.remote import RemoteModel

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def local(tiny_bundle) -> Model:
    return load_model(tiny_bundle)


@pytest.fixture(scope="module", params=["in_process", "remote"])
def model(request: pytest.FixtureRequest, local: Model) -> Model:
    if request.param == "in_process":
        return local
    return RemoteModel(request.getfixturevalue("front").url, bundle=local.info.bundle)


@pytest.fixture(scope="module")
def x(local: Model) -> np.ndarray:
    shape = (3, *local.info.input_shape)
    return np.random.default_rng(11).normal(size=shape).astype(np.float32)


def test_info(model: Model, local: Model) -> None:
    assert model.info == local.info
    assert list(model.info.taps) == list(local.info.taps)


def test_forward_is_equal_to_the_bit(model: Model, local: Model, x: np.ndarray) -> None:
    names = ["logits", "scores", *local.info.taps, f"{next(iter(local.info.taps))}_map"]
    expected = local.forward(x, names)
    found = model.forward(x, names)
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], strict=True)
        found[name][:] = 0  # the caller's own memory


def test_gradients_are_equal_to_the_bit(model: Model, local: Model, x: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    weights = {"logits": rng.normal(size=(3, len(local.info.classes))).astype(np.float32)}
    for more in ({}, {"fc": rng.normal(size=(3, local.info.taps["fc"])).astype(np.float32)}):
        expected = local.gradients(x, weights | more)
        found = model.gradients(x, weights | more)
        assert set(found) == {"input", *local.info.taps}
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.fixture(scope="module")
def draw(tiny_bundle, local: Model) -> Draw:
    bundle = read_bundle(tiny_bundle)
    edge = bundle.preprocessing.base_voxels
    base = np.random.default_rng(2).normal(size=(3, edge, edge, edge)).astype(np.float32)
    return Draw(base, bundle.preprocessing, bundle.recipe, count=10, seed=4)


def line_of(x: np.ndarray, fc: int) -> tuple[Line, dict[str, np.ndarray]]:
    """Two goals with one comparison each and one with none, as a class map has."""
    weights = {"logits": np.eye(6, dtype=np.float32)[:3], "fc": np.ones((3, fc), np.float32)}
    return Line(x[0], np.stack([x[1], x[2], np.zeros_like(x[0])]), steps=5), weights


def test_passes_are_equal_to_the_bit(model: Model, local: Model, draw: Draw) -> None:
    names = ["logits", "fc", "grad_fc", "grad_conv4"]
    weights = {"logits": np.linspace(-1, 1, 6).astype(np.float32)}
    expected, found = (m.passes(draw, names, weights) for m in (local, model))
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], strict=True)
    later = model.passes(replace(draw, first=3, count=2), ["logits"], {})["logits"]
    np.testing.assert_allclose(later, expected["logits"][3:5], rtol=1e-4, atol=1e-5)


def test_paths_are_equal_to_the_bit(model: Model, local: Model, x: np.ndarray) -> None:
    line, weights = line_of(x, local.info.taps["fc"])
    for asked in (line, replace(line, first=2, count=3), Line(x[0], 0 * x, steps=3)):
        expected, found = (m.paths(asked, weights) for m in (local, model))
        for name in ("gradient", "change"):
            np.testing.assert_array_equal(found[name], expected[name], strict=True)


def test_a_recipe_is_one_request(front, local: Model, draw: Draw, x: np.ndarray) -> None:
    model = RemoteModel(front.url, bundle=local.info.bundle)
    line, weights = line_of(x, local.info.taps["fc"])
    asked: list[str] = []
    infer = model._infer

    def noting(name: str, *more: object) -> dict:
        asked.append(name)
        return infer(name, *more)  # type: ignore[arg-type]

    model._infer = noting  # type: ignore[method-assign,assignment]
    model.passes(draw, ["logits"], {})
    model.paths(line, weights)
    assert asked == ["passes", "paths"]


def test_a_server_of_two_graphs_gives_the_same(
    front, local: Model, draw: Draw, x: np.ndarray
) -> None:
    """Passes to the bit; paths but for the rounding of the sum behind the first convolution, which
    such a server cannot take."""
    model = RemoteModel(front.url, bundle=local.info.bundle)
    known = model._said

    def without(name: str, version: str) -> dict:
        return known("nothing" if name in ("passes", "paths") else name, version)

    model._said = without  # type: ignore[method-assign]
    weights = {"logits": np.linspace(-1, 1, 6).astype(np.float32)}
    names = ["logits", "fc", "grad_fc"]
    expected, found = (m.passes(draw, names, weights) for m in (local, model))
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], strict=True)
    line, weights = line_of(x, local.info.taps["fc"])
    expected, found = (m.paths(line, weights) for m in (local, model))
    np.testing.assert_allclose(found["change"], expected["change"], rtol=1e-4, atol=1e-5)
    for mine, other in zip(found["gradient"], expected["gradient"], strict=True):
        assert np.linalg.norm(mine - other) <= 5e-3 * np.linalg.norm(other)


def test_another_recipe_than_the_bundles_is_drawn_here(front, local: Model, draw: Draw) -> None:
    model = RemoteModel(front.url, bundle=local.info.bundle)
    other = replace(draw, recipe=draw.recipe.model_copy(update={"degrees": 3.0}))
    expected, found = (m.passes(other, ["logits"], {}) for m in (local, model))
    np.testing.assert_array_equal(found["logits"], expected["logits"])
    assert not np.array_equal(found["logits"], model.passes(draw, ["logits"], {})["logits"])


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m.forward(x, ["nothing"]),
        lambda m, x: m.gradients(x, {}, ["nothing"]),
        lambda m, x: m.paths(Line(x[0], x, 3), {"logits": np.zeros((2, 6), np.float32)}),
        lambda m, x: m.paths(Line(x[0] * np.float32(np.nan), x, 3), {"logits": x[:, 0, 0, 0, :6]}),
        lambda m, x: m.forward(x[:, :1], ["logits"]),
        lambda m, x: m.forward(x * np.float32(np.inf), ["logits"]),
        lambda m, x: m.gradients(x, {"nothing": x[:, 0, 0, 0]}),
        lambda m, x: m.gradients(x, {"logits": np.zeros((1, 2), np.float32)}),
    ],
)
def test_refusals(model: Model, x: np.ndarray, call: Callable[[Model, np.ndarray], object]) -> None:
    with pytest.raises(InputError):
        call(model, x)


def test_threads_share_one_model(model: Model, local: Model, x: np.ndarray) -> None:
    expected = local.forward(x, ["logits"])["logits"]
    found: list[np.ndarray] = []

    def ask() -> None:
        found.append(model.forward(x, ["logits"])["logits"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for value in found:
        np.testing.assert_array_equal(value, expected)


def test_nobody_there() -> None:
    model = RemoteModel("http://127.0.0.1:1")
    with pytest.raises(Unavailable) as caught:
        model.forward(np.zeros((1, 3, 24, 24, 24), np.float32), ["logits"])
    assert caught.value.code == "inference_unavailable"
    assert caught.value.retry_after > 0


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = RemoteModel(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        with pytest.raises(Unavailable) as caught:
            model.forward(np.zeros((1, 3, 24, 24, 24), np.float32), ["logits"])
    assert caught.value.code == "inference_unavailable"


class _Closing(BaseHTTPRequestHandler):
    """Answers /config once a connection and closes it without a word, as a dying worker does."""

    protocol_version = "HTTP/1.1"
    answers = 0

    def do_GET(self) -> None:
        type(self).answers += 1
        body = b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def test_a_connection_that_died_is_replaced() -> None:
    with HTTPServer(("127.0.0.1", 0), _Closing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            model = RemoteModel(f"127.0.0.1:{server.server_port}", timeout=5)
            for _ in range(2):  # reached both times, and told that it is no bundle of ours
                with pytest.raises(LensError) as caught:
                    _ = model.info
                assert caught.value.code == "bad_answer"
            assert _Closing.answers == 2
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(Unavailable):
        _ = model.info


def test_another_bundle(front) -> None:
    with pytest.raises(NotFound) as caught:
        _ = RemoteModel(front.url, bundle="b-another").info
    assert caught.value.code == "bundle_mismatch"
    assert caught.value.expected == "b-another"
    with pytest.raises(NotFound):
        RemoteModel(front.url, bundle="b-another").forward(
            np.zeros((1, 3, 24, 24, 24), np.float32), ["logits"]
        )


class _Plain(BaseHTTPRequestHandler):
    """A server of the protocol whose versions are numbers, as Triton's are."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if "/versions/" in self.path:
            status, body = (
                400,
                {"error": "failed to get model version from specified version string"},
            )
        else:
            said = {
                "bundle": "b-plain", "classes": ["a", "b"], "phases": ["p"], "taps": {"fc": 2},
                "input_shape": [1, 2, 2, 2],
            }  # fmt: skip
            parameters = {k: {"string_value": json.dumps(v)} for k, v in said.items()}
            status, body = 200, {"name": "classifier", "parameters": parameters}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_without_such_versions_is_asked_without_one() -> None:
    with HTTPServer(("127.0.0.1", 0), _Plain) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"127.0.0.1:{server.server_port}"
            for wanted in ("b-plain", None):
                info = RemoteModel(url, bundle=wanted, timeout=5).info
                assert (info.bundle, info.classes) == ("b-plain", ("a", "b"))
            with pytest.raises(NotFound) as caught:
                _ = RemoteModel(url, bundle="b-other", timeout=5).info
            assert (caught.value.found, caught.value.expected) == ("b-plain", "b-other")
        finally:
            server.shutdown()
            thread.join()
    assert _Plain.asked[0].endswith("/models/classifier/versions/b-plain/config")


@pytest.mark.parametrize("url", ["ftp://a", "http://", ""])
def test_not_an_address(url: str) -> None:
    with pytest.raises(LensError) as caught:
        RemoteModel(url)
    assert caught.value.field == "inference_url"
