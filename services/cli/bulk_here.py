"""A cohort explained on this machine: several processes, each with a model of its own.

Processes, since one explanation is numpy and Python between calls of onnxruntime; started afresh
rather than forked, and spoken to in lines of JSON. Each has one lesion in work and one waiting, so
that none is idle while this process writes.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import IO

from models.errors import LensError
from services.cli.bulk_manifest import Line
from services.cli.bulk_worker import Done, Order
from wire.cohort import CohortLesion

AHEAD = 2
TRIES = 2
_ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Member:
    """A started process, and the lesions that it was given, the one in work first."""

    def __init__(self, order: bytes) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.bulk_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env={**os.environ, **_ONE},
        )  # fmt: skip
        self.given: deque[CohortLesion] = deque()
        self.ready = self.ended = False
        self._rest = b""
        self._say(order)

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, lesion: CohortLesion) -> None:
        self.given.append(lesion)
        self._say(lesion.model_dump_json(by_alias=True).encode())

    def read(self) -> list[bytes] | None:
        """Whole lines that have come; None at the end."""
        found = self.stdout.read(1 << 16)
        if not found:
            return None
        *lines, self._rest = (self._rest + found).split(b"\n")
        return lines

    def end(self) -> None:
        """No more lesions: it ends after the one in work."""
        self.ended = True
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _say(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its end is seen at its stdout
            self.process.stdin.write(data + b"\n")


def explain_here(
    lesions: Sequence[CohortLesion],
    order: Order,
    processes: int,
    started: Callable[[float], None] | None = None,
) -> Iterator[Done]:
    """Explain every lesion; yields as they are done, in any order.

    started(CPU seconds) is called as each process is ready to work.
    A process that dies takes nothing with it but its lesion, which is tried once more. Raises
    LensError where a process cannot even start.
    """
    waiting = deque(lesions)
    tries: dict[str, int] = {}
    head = order.model_dump_json(by_alias=True).encode()
    members: list[_Member] = []
    with selectors.DefaultSelector() as events:

        def start() -> None:
            member = _Member(head)
            members.append(member)
            events.register(member.stdout, selectors.EVENT_READ, member)
            feed(member)

        def feed(member: _Member) -> None:
            while waiting and len(member.given) < AHEAD and not member.ended:
                member.give(waiting.popleft())
            if not waiting and not member.given:
                member.end()

        try:
            for _ in range(max(min(processes, len(lesions)), 0)):
                start()
            while members:
                for key, _ in events.select():
                    member: _Member = key.data
                    lines = member.read()
                    if lines is not None:
                        yield from _answers(member, lines, started)
                        feed(member)
                        continue
                    events.unregister(member.stdout)
                    members.remove(member)
                    member.process.wait()
                    yield from _lost(member, waiting, tries)
                    if waiting and len(members) < processes:
                        start()
        finally:
            for member in members:
                member.process.kill()
                member.process.wait()
                member.stdout.close()
                member.end()


def _answers(
    member: _Member, lines: list[bytes], started: Callable[[float], None] | None
) -> Iterator[Done]:
    for raw in lines:
        if not member.ready:
            member.ready = True
            if started:
                started(float(json.loads(raw)["ready"]))
            continue
        member.given.popleft()
        yield Done.model_validate_json(raw)


def _lost(member: _Member, waiting: deque[CohortLesion], tries: dict[str, int]) -> Iterator[Done]:
    """Of a process that ended: what it was given goes to others; the one in work is suspected."""
    member.stdout.close()
    member.end()
    code = member.process.returncode
    if not member.ready:
        raise LensError(
            "a process that explains could not start; its reason stands above", found=f"code {code}"
        )
    if not member.given:
        return
    suspect = member.given.popleft()
    waiting.extendleft(reversed(member.given))
    name = suspect.lesion_id
    tries[name] = tries.get(name, 0) + 1
    if tries[name] < TRIES:
        waiting.append(suspect)
        return
    reason = f"the process that explained it ended {TRIES} times (code {code})"
    yield Done(line=Line.failure(name, reason))
