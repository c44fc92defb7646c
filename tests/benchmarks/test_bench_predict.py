"""The quick form of the benchmark runs for real: the service and the bare model, no peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def record(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    out = tmp_path_factory.mktemp("bench")
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.predict", "--bundle", str(tiny_bundle),
            "--out", str(out), "--only", "lesionlens", "--networks", "given",
            "--rounds", "2", "--seconds", "1", "--clients", "1,8",
        ],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (out / "predict.png").stat().st_size > 1000
    return json.loads((out / "predict.json").read_text("utf-8"))


def test_the_record_says_what_made_it(record: dict) -> None:  # type: ignore[type-arg]
    assert {"made_by", "version", "when", "machine", "seed", "conditions"} <= set(record)
    assert record["networks"].keys() == {"given"}
    assert record["main_network"] == "given"
    assert record["conditions"]["cores_used"] >= 1


def test_ratios_have_a_spread_for_every_concurrency(record: dict) -> None:  # type: ignore[type-arg]
    ratios = record["ratios"]
    assert ratios["vs_peer"] == {}
    assert ratios["fast_variant_vs_fp32"] is None
    for name in (
        "throughput_vs_inprocess",
        "cpu_per_request_vs_inprocess",
        "throughput_vs_slices",
        "cpu_per_request_vs_slices",
    ):
        assert ratios[name].keys() == {"1", "8"}
        for found in ratios[name].values():
            assert found["n"] == 2
            assert 0 < found["min"] <= found["median"] <= found["max"]
    servers = record["networks"]["given"]["servers"]
    for c in ("1", "8"):
        assert 0 < record["p50_ms"][c] <= record["p99_ms"][c]
        # A server does all that the bare graph does, so it cannot take less.
        ours, limit = (
            servers[s][c]["cpu_ms"]["median"] for s in ("lesionlens", "inprocess_slices")
        )
        assert ours > 0.8 * limit
        assert servers["lesionlens"][c]["answers"] > 0


def test_the_null_network_shows_the_servers_own_cost(record: dict) -> None:  # type: ignore[type-arg]
    assert record["null_model"]["network"]["payload_bytes"] == 196_608
    assert record["null_model_cpu_ms"]["rest_binary"]["median"] > 0
    assert record["null_model_cpu_ms"]["grpc"]["median"] > 0
