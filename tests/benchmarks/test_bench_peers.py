"""Every peer is asked for the same lesion, and its environment is pinned."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from benchmarks.peers.registry import HERE, PEERS

X = np.random.default_rng(5).normal(size=(2, 3, 4, 4, 4)).astype(np.float32)
SCORES = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)


def sent(name: str) -> np.ndarray:
    """The lesion as it stands in the request."""
    body = PEERS[name].endpoint(1234, X).body
    if name == "mlserver":
        data = json.loads(body)["inputs"][0]["data"][0]
        return np.frombuffer(base64.b64decode(data), "<f4")
    if name == "bentoml":
        return np.asarray(json.loads(body)["x"], np.float32)
    return np.frombuffer(body, "<f4")


def answer(name: str) -> bytes:
    if name == "mlserver":
        text = base64.b64encode(SCORES.tobytes()).decode()
        return json.dumps({"outputs": [{"data": [text]}]}).encode()
    return json.dumps(SCORES.tolist()).encode() if name == "bentoml" else SCORES.tobytes()


@pytest.mark.parametrize("name", PEERS)
def test_a_request_carries_the_lesion_and_an_answer_gives_the_scores(name: str) -> None:
    np.testing.assert_array_equal(sent(name).ravel(), X.ravel())
    endpoint = PEERS[name].endpoint(1234, X)
    np.testing.assert_array_equal(endpoint.read(answer(name), {}).ravel(), SCORES.ravel())
    assert endpoint.url.startswith("http://127.0.0.1:1234/")


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_has_a_script_and_pinned_requirements(name: str) -> None:
    peer = PEERS[name]
    assert peer.path.is_file()
    lines = (HERE / f"requirements-{peer.requirements}.txt").read_text("utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert all(re.search(r"[=<]", line) for line in wanted)
    assert any(line.startswith(f"{peer.package}==") for line in wanted) or any(
        line.startswith(f"{peer.package}[") and "==" in line for line in wanted
    )
    assert any(line.startswith("onnxruntime==") for line in wanted)


def test_all_run_the_onnxruntime_that_the_service_runs() -> None:
    from importlib.metadata import version

    pins = {
        re.search(r"^onnxruntime==(.+)$", f.read_text("utf-8"), re.MULTILINE)[1]  # type: ignore[index]
        for f in HERE.glob("requirements-*.txt")
    }
    assert pins == {version("onnxruntime")}
