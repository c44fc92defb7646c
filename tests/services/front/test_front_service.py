"""The process itself: health, metrics, docs without a network, no torch, a bad bundle, an end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import tritonclient.grpc as oip

from services.front import openapi
from tests.support.front_server import Front, await_ready, free_port, start_front, stop

pytestmark = pytest.mark.system


def test_health_and_headers(front) -> None:
    for path in ("/livez", "/readyz"):
        assert httpx.get(front.url + path).status_code == 200
    answer = httpx.get(f"{front.url}/v2")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers
    assert httpx.get(front.url, follow_redirects=True).url.path == "/docs"


def test_only_this_machine_can_reach_it(front) -> None:
    port = int(front.url.rsplit(":", 1)[1])
    with socket.socket() as probe, pytest.raises(OSError, match="refused"):
        probe.connect(("127.0.0.2", port))


def test_metrics_have_routes_and_no_paths(front, files) -> None:
    httpx.post(f"{front.url}/v1/predictions", files=files, data={"box": "8,8,4,20,20,10"})
    httpx.get(f"{front.url}/v1/explanations/exp-0123456789abcdef01234567")
    httpx.get(f"{front.url}/nothing/4711")
    httpx.get(f"{front.url}/v2/models/classifier")
    text = httpx.get(f"{front.url}/metrics").text
    line = r'lesionlens_http_requests_total{method="GET",route="%s",status="%s"} \d'
    assert re.search(line % (re.escape("/v2/models/{model}"), "200"), text)
    assert re.search(line % ("unmatched", "404"), text)
    assert "exp-0123456789abcdef01234567" not in text
    assert "4711" not in text
    assert "lesionlens_inference_queue_depth" in text
    assert re.search(r'lesionlens_inference_seconds_count{call="forward"} [1-9]', text)
    assert re.search(r'lesionlens_inference_rows_total{call="forward"} [1-9]', text)


def test_a_killed_worker_is_replaced_and_forgotten(tiny_bundle, tmp_path: Path, files) -> None:
    port, grpc_port = free_port(), free_port()
    process = start_front(tiny_bundle, tmp_path, port, LESIONLENS_GRPC_PORT=str(grpc_port))
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, tmp_path / "stderr.log")
        client = oip.InferenceServerClient(f"127.0.0.1:{grpc_port}")
        assert client.is_server_ready()
        front = Front(url, tiny_bundle, process, tmp_path / "stderr.log")
        (worker,) = front.children()
        folder = tmp_path / f"front-{port}" / "prometheus_multiproc_dir"
        assert (folder / f"gauge_livesum_{worker}.db").exists()
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz", timeout=30).status_code == 200:
                    break
            time.sleep(0.2)
        assert front.children() != [worker]
        answer = httpx.post(
            f"{url}/v1/predictions", files=files, data={"box": "8,8,4,20,20,10"}, timeout=30
        )
        assert answer.status_code == 200
        with oip.InferenceServerClient(f"127.0.0.1:{grpc_port}") as again:
            assert again.is_server_ready()
        assert not (folder / f"gauge_livesum_{worker}.db").exists()
    finally:
        stop(process)


def test_bentomls_own_routes_are_out_of_reach(front) -> None:
    for path in ("/docs.json", "/static_content/swagger-ui.css", "/static_content/../service.py"):
        assert httpx.get(front.url + path).json()["type"].startswith("urn:lesionlens:problem:")
    for path in ("/livez", "/metrics", "/schema.json"):
        assert httpx.post(front.url + path, content=b"x").status_code in (404, 405)


def test_docs_need_no_network(front) -> None:
    page = httpx.get(f"{front.url}/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) >= 4
    for link in links:
        assert link.startswith("/")
        assert httpx.get(front.url + link).status_code == 200
    assert not re.search(r"https?://", page)
    start = httpx.get(f"{front.url}/docs/assets/start.js").text
    assert "/openapi.json" in start
    assert httpx.get(f"{front.url}/docs/assets/index.css").status_code == 404
    assert httpx.get(f"{front.url}/docs/assets/..%2f..%2fservice.py").status_code == 404


def test_openapi_is_the_file_and_holds_together(front) -> None:
    served = httpx.get(f"{front.url}/openapi.json").json()
    written = json.loads(openapi.FILE.read_text("utf-8"))
    assert sorted(served["paths"]) == sorted(written["paths"])
    assert openapi.document() == openapi.FILE.read_text("utf-8")
    for schema in (served, written):
        names = set(schema["components"]["schemas"])
        refs = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
        assert refs <= names
        assert "HTTPValidationError" not in names
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                assert operation["summary"], path
    assert {"/v1/predictions", "/v1/explanations", "/v2/models/{model}/infer"} <= set(
        written["paths"]
    )


NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "lightning", "monai", "onnx", "onnxscript", "sklearn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def test_it_serves_where_torch_cannot_be_imported(tiny_bundle, tmp_path: Path, files) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(NO_TORCH)
    path = os.pathsep.join([str(hook), *filter(None, [os.environ.get("PYTHONPATH")])])
    refused = subprocess.run(
        [sys.executable, "-c", "import torch"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    assert b"No module named 'torch'" in refused.stderr
    port = free_port()
    process = start_front(tiny_bundle, tmp_path / "home", port, PYTHONPATH=path)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, tmp_path / "home" / "stderr.log")
        answer = httpx.post(
            f"{url}/v1/predictions", files=files, data={"box": "8,8,4,20,20,10"}, timeout=30
        )
        assert answer.status_code == 200
    finally:
        code = stop(process)
    assert code == 0, "SIGTERM is an orderly end"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/livez")
    log = (tmp_path / "home" / "stderr.log").read_text()
    assert "Traceback" not in log
    assert "GET /" not in log


def _serve(command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"LESIONLENS_{k.upper()}": v for k, v in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture
def damaged(tiny_bundle, tmp_path: Path) -> Path:
    """The tiny bundle with one changed byte in its weights."""
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, folder)
    file = folder / "classifier.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["services.front.serve"],
        ["bentoml", "serve", "services.front.service:LesionLens"],
    ],
)
def test_one_changed_byte_is_refused(damaged: Path, tmp_path: Path, command: list[str]) -> None:
    """One line, an exit code, and no supervisor that tries for ever."""
    found = _serve(command, bundle=str(damaged), port=str(free_port()), home=str(tmp_path / "h"))
    assert found.returncode != 0
    lines = [line for line in found.stderr.splitlines() if "lesionlens: " in line]
    assert len(lines) == 1
    assert "classifier.onnx" in lines[0]
    assert "checksum" in lines[0]
    assert "Traceback" not in found.stderr


def test_no_worker_outlives_its_supervisor(tiny_bundle, tmp_path: Path) -> None:
    port = free_port()
    process = start_front(tiny_bundle, tmp_path, port)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process, tmp_path / "stderr.log")
        (worker,) = Front(url, tiny_bundle, process, tmp_path / "stderr.log").children()
    finally:
        process.kill()
        process.wait(10)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and Path(f"/proc/{worker}").exists():
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/livez")


def test_a_bundle_damaged_under_way_ends_the_service(tiny_bundle, tmp_path: Path) -> None:
    """A worker that cannot come back ends its supervisor, with an exit code, once."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    port = free_port()
    home = tmp_path / "home"
    process = start_front(folder, home, port)
    try:
        await_ready(f"http://127.0.0.1:{port}", process, home / "stderr.log")
        file = folder / "probes.safetensors"
        file.chmod(0o644)
        file.write_bytes(file.read_bytes() + b"x")
        (worker,) = Front("", folder, process, home).children()
        os.kill(worker, signal.SIGKILL)
        assert process.wait(60) == 2
    finally:
        stop(process)
    log = (home / "stderr.log").read_text()
    assert log.count("lesionlens: probes.safetensors") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bundle": "/nowhere/at/all"}, "there is no such folder"),
        ({"bundle": "lesionlens:production"}, "lesionlens bundle promote"),
        ({"port": "no"}, "LESIONLENS_PORT"),
        ({"host": "192.0.2.1"}, "cannot listen here"),
    ],
)
def test_a_start_that_cannot_work(
    tiny_bundle, tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    base = {"bundle": str(tiny_bundle), "port": str(free_port()), "home": str(tmp_path)}
    found = _serve(["services.front.serve"], **(base | settings))
    assert found.returncode == 2
    assert found.stderr.startswith("lesionlens: ")
    assert len(found.stderr.splitlines()) == 1
    assert words in found.stderr


@pytest.mark.parametrize("which", ["port", "grpc_port"])
def test_a_taken_port(front, tmp_path: Path, which: str) -> None:
    taken = {"port": front.url, "grpc_port": front.grpc}[which].rsplit(":", 1)[1]
    settings = {"port": str(free_port()), "bundle": str(front.bundle), "home": str(tmp_path)}
    found = _serve(["services.front.serve"], **(settings | {which: taken}))
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1
    assert "a free port" in found.stderr
    assert f"LESIONLENS_{which.upper()}" in found.stderr
