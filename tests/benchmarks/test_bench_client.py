"""The load client, in a process of its own, against a small server of known manners."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.load import closed
from benchmarks.load.client import summary
from benchmarks.load.connection import parse_head, request_bytes
from benchmarks.load.endpoint import Endpoint, oip, oip_endpoint, raw
from benchmarks.overload import trace

PAUSE = 0.02


class Manners(BaseHTTPRequestHandler):
    """/echo answers the body after a pause; /busy answers 503 every other time; both keep on."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Manners.count += 1
        status = 503 if self.path == "/busy" and Manners.count % 2 else 200
        if self.path == "/echo":
            time.sleep(PAUSE)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Manners)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_closed_loop_keeps_every_client_busy(port: int, tmp_path: Path) -> None:
    about = Endpoint(port, "/echo", b"\0" * 4096, raw).written(tmp_path)
    rows = trace(about, ["--clients", "3", "--seconds", "0.6"])
    assert set(rows[:, 2]) == {200}
    assert (rows[:, 1] >= PAUSE).all()
    # Never more than three under way, and nobody idle: time asked for is time spent waiting.
    assert rows[:, 1].sum() <= 3 * (rows[:, 0] + rows[:, 1]).max()
    assert len(rows) >= 6


def test_an_open_loop_leaves_on_time_and_counts_refusals(port: int, tmp_path: Path) -> None:
    about = Endpoint(port, "/busy", b"x", raw).written(tmp_path)
    rows = trace(about, ["--rate", "50", "--seconds", "1"])
    np.testing.assert_allclose(np.sort(rows[:, 0]), np.arange(50) / 50)
    assert np.count_nonzero(rows[:, 2] == 503) == 25
    assert np.count_nonzero(rows[:, 2] == 200) == 25
    assert (rows[:, 1] > rows[:, 3]).all()  # sent late or not, an answer takes time
    assert (rows[:, 3] >= 0).all()


def test_a_lost_connection_is_a_row_of_its_own(tmp_path: Path) -> None:
    about = Endpoint(1, "/", b"x", raw).written(tmp_path)  # nobody listens on port 1
    rows = trace(about, ["--rate", "20", "--seconds", "0.2"])
    assert set(rows[:, 2]) == {0}


def test_its_summary_is_what_the_rounds_read(port: int, tmp_path: Path) -> None:
    about = Endpoint(port, "/echo", b"x", raw).written(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load.client", str(about), "--seconds", "0.2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.removeprefix("BENCH "))
    assert found["requests"] == sum(n for _, n in found["latencies_us"])
    assert found["errors"] == 0
    rows = np.array([[0.0, 0.001, 200, 0], [0.1, 0.001, 200, 0], [0.2, 0.5, 503, 0]])
    assert summary(rows, 1.0) == {
        "requests": 2, "seconds": 1.0, "errors": 1, "latencies_us": [(1000, 2)],
    }  # fmt: skip


@pytest.mark.parametrize("client", ["wrk", "asyncio"])
def test_either_client_counts_answers_and_refuses_errors(
    port: int, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client == "wrk" and shutil.which("wrk") is None:
        missing = "wrk is not installed (Debian: apt-get install wrk)"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing}; CI must have it")
        pytest.skip(missing)
    monkeypatch.setattr(closed, "client_name", lambda: client)
    load = closed.closed_loop(Endpoint(port, "/echo", b"\0" * 1000, raw), 2, 1)
    assert load.requests == pytest.approx(sum(n for _, n in load.latencies_us), abs=2)
    assert load.requests > 0
    assert load.quantile(0.5) >= 1e3 * PAUSE
    assert load.client_cpu > 0
    with pytest.raises(RuntimeError, match="were errors"):
        closed.closed_loop(Endpoint(port, "/busy", b"x", raw), 2, 1)


def test_the_request_is_http_and_heads_are_read() -> None:
    data = request_bytes({"port": 80, "path": "/a", "headers": {"X-B": "c"}, "body": b"body"})
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /a HTTP/1.1"
    assert b"Content-Length: 4" in head
    assert b"X-B: c" in head
    assert body == b"body"
    assert parse_head(b"HTTP/1.1 503 Busy\r\nContent-Length: 7\r\n\r\n") == (503, 7, False)
    closing = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: close\r\n\r\n"
    assert parse_head(closing) == (200, 0, True)
    with pytest.raises(ValueError, match="length"):
        parse_head(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_protocol_request_is_what_the_service_decodes() -> None:
    from services.inference.oip_codec import decode_request

    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 4)).astype(np.float32)
    endpoint = oip_endpoint(1234, x)
    length = int(endpoint.headers["Inference-Header-Content-Length"])
    np.testing.assert_array_equal(decode_request(endpoint.body, length).inputs["x"], x)
    answer = b'{"a":1}' + np.array([0.5], "<f4").tobytes()
    assert oip(answer, {"inference-header-content-length": "7"}).tolist() == [0.5]
