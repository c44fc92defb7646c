"""An explanation from a server: upload, wait, fetch the exact bytes.

POST /v1/explanations -> 202, Location -> GET until done -> document, report, maps
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from models.cohort.nifti import nifti_bytes
from models.errors import InputError, LensError, Unavailable
from models.volume import Study
from wire.api import ExplanationParameters, JobState, JobStatus, Problem

POLL = 0.3
PATIENCE = 60.0  # seconds that a server may be away while a job waits


@dataclass(frozen=True)
class Fetched:
    """Bytes as the server keeps them. job: its final status; None for work in this process."""

    document: bytes
    report: bytes
    maps: bytes
    job: JobStatus | None = None


def explain_remote(
    server: str,
    study: Study,
    parameters: ExplanationParameters,
    progress: Callable[[str, float], None],
    transport: httpx.BaseTransport | None = None,
) -> Fetched:
    """Have `server` (its base URL) explain a study. progress(stage, fraction).

    Raises LensError with the server's own words where it refuses, Unavailable where it is away.
    """
    timeout = httpx.Timeout(30.0, read=300.0, write=300.0)
    with (
        reachable(server),
        httpx.Client(base_url=server, timeout=timeout, transport=transport) as client,
    ):
        return _explain(client, study, parameters, progress)


@contextmanager
def reachable(server: str) -> Iterator[None]:
    """InputError for what is no address, Unavailable (server_away) where nobody answers."""
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise InputError(
            "not an address", code="wrong_url", field="server", found=server[:80],
            expected="http://host:port",
        ) from None  # fmt: skip
    except httpx.HTTPError as error:
        raise Unavailable(
            f"the server at {server} cannot be reached ({_reason(error)})", code="server_away"
        ) from None


def _explain(
    client: httpx.Client,
    study: Study,
    parameters: ExplanationParameters,
    progress: Callable[[str, float], None],
) -> Fetched:
    progress("sending the volumes", 0.0)
    files = {
        phase: (f"{phase}.nii.gz", nifti_bytes(volume), "application/gzip")
        for phase, volume in study.volumes.items()
    }
    fields = {f"box.{phase}": json.dumps(box.as_list()) for phase, box in study.boxes.items()}
    fields |= {
        name: json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in parameters.model_dump().items()
    }
    answer = checked(client.post("/v1/explanations", data=fields, files=files))
    status = JobStatus.model_validate(answer.json())
    location = answer.headers.get("Location", status.links.self)
    status = _wait(client, location, status, progress)
    if status.state != JobState.DONE:
        raise failure_of(status.error, status.state.value)
    return Fetched(
        document=checked(client.get(f"{location}/document")).content,
        report=checked(client.get(status.links.report)).content,
        maps=checked(client.get(status.links.maps)).content,
        job=status,
    )


def _wait(
    client: httpx.Client,
    location: str,
    status: JobStatus,
    progress: Callable[[str, float], None],
) -> JobStatus:
    """Poll until the final state. A job once accepted outlives a server that restarts."""
    last_answer = time.monotonic()
    while not status.state.final:
        progress(status.stage or status.state.value, status.progress)
        time.sleep(POLL)
        try:
            answer = client.get(location)
            if answer.status_code != 503:
                status = JobStatus.model_validate(checked(answer).json())
                last_answer = time.monotonic()
                continue
        except httpx.TransportError:
            if time.monotonic() - last_answer > PATIENCE:
                raise
        if time.monotonic() - last_answer > PATIENCE:
            raise Unavailable(f"the server did not answer for {PATIENCE:.0f} s; the job waits")
        progress("waiting for the server", status.progress)
        time.sleep(1.0)
    return status


def failure_of(problem: Problem | None, state: str) -> LensError:
    """Why a job has no result, as the error that was raised there."""
    if problem is None:
        return LensError(f"the job was {state}", code=state)
    return LensError(
        problem.detail, field=problem.field, found=problem.found, expected=problem.expected
    )


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, or the server's problem details as an error of ours."""
    if answer.is_success:
        return answer
    try:
        problem: Any = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        raise LensError(
            "the server gave an unexpected answer", field="server",
            found=f"HTTP {answer.status_code}", expected="a LesionLens server",
        )  # fmt: skip
    raise LensError(
        str(problem["detail"]),
        code=str(problem.get("type", "")).rpartition(":")[2] or None,
        **{k: str(problem[k]) for k in ("field", "found", "expected") if problem.get(k)},
    )


def _reason(error: httpx.HTTPError) -> str:
    return type(error).__name__ if not str(error) else str(error).splitlines()[0][:100]
