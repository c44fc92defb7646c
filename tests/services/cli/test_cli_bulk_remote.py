"""How the command asks a server about its jobs: all at once, and not more often than it helps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from services.cli import bulk_remote
from services.cli.bulk_remote import LOOK, LOOK_FEW, TOGETHER, _Run


class Clock:
    """Stands for the module's `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def flying(number: int, asked: list[int]) -> _Run:
    """A run with so many jobs in flight, on a server where all of them wait for ever."""

    def answer(request: httpx.Request) -> httpx.Response:
        ids = request.url.params.get_list("id")
        asked.append(len(ids))
        return httpx.Response(200, json={"jobs": [{"id": i, "state": "queued"} for i in ids]})

    client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server")
    nothing: Any = SimpleNamespace()
    run = _Run(nothing, client, nothing, [], [], lambda *_: None)
    run.flight = {f"exp-{i}": [(f"les-{i}", 0.0)] for i in range(number)}
    return run


@pytest.mark.parametrize(("number", "pause"), [(TOGETHER + 1, LOOK), (TOGETHER, LOOK_FEW)])
def test_all_jobs_are_asked_for_at_once_and_then_not_for_a_while(
    number: int, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(bulk_remote, "time", clock)
    asked: list[int] = []
    run = flying(number, asked)
    assert list(run._collect()) == []
    clock.now += pause * 0.9
    assert list(run._collect()) == []
    assert asked == [number]
    clock.now += pause * 0.2
    assert list(run._collect()) == []
    assert asked == [number, number]
    assert len(run.flight) == number
