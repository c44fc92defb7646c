"""The bulk path on real processes: who waits goes first, and a cohort goes through a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle.read import Bundle
from services.cli.bulk import Wish, explain_cohort
from services.cli.stack import Stack, free_ports
from services.common.ledger import Job, Ledger
from services.common.lesion_stack import MEDIA_TYPE, pack
from services.common.settings import Settings
from tests.support import lesions
from wire.api import ExplanationParameters, JobState

pytestmark = pytest.mark.system

QUICK = {"passes": "2", "map_steps": "2"}
COUNT = 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[Stack]:
    port, redis_port = free_ports(2)
    settings = Settings(
        home=tmp_path_factory.mktemp("bulk"), bundle=bundle.path, port=port,
        redis_port=redis_port, redis_url=None, bulk_queue=6,
    )  # fmt: skip
    with Stack(settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def ledger(stack: Stack) -> Ledger:
    return Ledger(stack.settings.ledger)


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten lesions, of which the fourth lies outside of its images."""
    root = tmp_path_factory.mktemp("ten")
    away = [[900, 900, 900], [910, 910, 910]]
    lesions.part_of(
        tiny_cohort,
        root,
        COUNT,
        lambda i, one: (
            one.model_copy(update={"voi": dict.fromkeys(one.voi, away)}) if i == 3 else one
        ),
    )
    return root


def until(condition: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_who_waits_goes_before_the_bulk(
    stack: Stack, ledger: Ledger, tiny_cohort: Path, bundle: Bundle
) -> None:
    phases, spec = bundle.manifest.phases, bundle.preprocessing
    stacked = pack([lesions.lesion(tiny_cohort, phases, spec, i) for i in range(6)])
    files, box = lesions.upload(tiny_cohort, phases, 7)
    with httpx.Client(base_url=stack.url, timeout=60, trust_env=False) as client:
        answer = client.post(
            "/v1/explanations:batch",
            params={"passes": "60", "map_steps": "48"},
            content=stacked,
            headers={"Content-Type": MEDIA_TYPE},
        )
        assert answer.status_code == 202, answer.text
        ids = [job["id"] for job in answer.json()["jobs"]]

        def of(state: JobState) -> list[Job]:
            return [job for job in ledger.get_many(ids).values() if job.state is state]

        until(lambda: of(JobState.RUNNING))
        posted = client.post("/v1/explanations", files=files, data=box | QUICK)
        assert posted.status_code == 202
        alone: str = posted.json()["id"]
        until(lambda: client.get(f"/v1/explanations/{alone}").json()["state"] == "done")
        batch = client.get(f"/v1/batches/{answer.json()['batch']}").json()
        assert batch["states"]["queued"] > 0
        until(lambda: client.get(f"/v1/batches/{batch['batch']}").json()["finished"])

    job = ledger.get(alone)
    assert job is not None
    assert job.started_at is not None
    between = [
        one
        for one in of(JobState.DONE)
        if one.started_at and job.accepted_at < one.started_at < job.started_at
    ]
    # One may have been on its way out of the queue when this one came.
    assert len(between) <= stack.settings.worker_processes
    starts = {one.id: one.started_at or 0.0 for one in of(JobState.DONE)}
    assert sorted(ids, key=starts.__getitem__) == ids  # first come, first served


def words(cohort: Path, stack: Stack, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "services.cli.main", "explain", "--cohort", str(cohort), "--server",
        stack.url, "--out", str(out), "--with-reports", "--passes", "30", "--map-steps", "24",
    ]  # fmt: skip


def test_a_cohort_on_a_server_killed_and_started_again(
    stack: Stack, ledger: Ledger, cohort: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """The client is killed, then the front door; each job is computed once, with equal bytes."""
    out, command = tmp_path / "there", words(cohort, stack, tmp_path / "there")
    manifest = out / "manifest.jsonl"

    def lines(count: int) -> bool:
        return manifest.exists() and manifest.read_bytes().count(b"\n") > count

    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: lines(3) or run.poll() is not None)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    left = manifest.read_bytes().count(b"\n")
    again = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: lines(left) or again.poll() is not None)  # it has met the server
    stack.kill("front")
    stack.start_one("front")
    said, faults = again.communicate(timeout=400)
    assert again.returncode == 1, faults
    assert faults.count("failed: lesion") == 1
    assert "box.arterial: the box reaches outside" in faults

    found = [json.loads(raw) for raw in manifest.read_text("utf-8").splitlines()[1:]]
    done = {line["id"]: line for line in found if line["state"] == "done"}
    assert len(done) == COUNT - 1
    assert sum(line["state"] == "done" for line in found) == len(done), said  # each one once
    jobs = ledger.get_many([line["job"] for line in done.values()])
    assert {job.lane for job in jobs.values()} == {"bulk"}
    assert {job.attempts for job in jobs.values()} == {1}

    here = tmp_path / "here"
    parameters = ExplanationParameters(passes=30, map_steps=24)
    local = Wish(cohort, here, parameters, bundle=str(bundle.path), processes=1, limit=3)
    explain_cohort(local)
    for name in sorted(f.name for f in (here / "explanations").iterdir()):
        assert (out / "explanations" / name).read_bytes() == (
            here / "explanations" / name
        ).read_bytes()
    assert len(list((out / "reports").iterdir())) == COUNT - 1
