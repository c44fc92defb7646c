"""Stages of a long run: each is named, timed and reported while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What a listener hears. seconds is None while the stage goes on, its duration at its end.

    fraction: 0 to 1 where it is known. note: what is being done, or what came out.
    """

    stage: str
    note: str = ""
    fraction: float | None = None
    seconds: float | None = None


Progress = Callable[[Report], None]


class Stages:
    """Runs stages one after another; `seconds` holds the finished ones in order."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._listen = progress or (lambda report: None)
        self._stage = ""
        self._note = ""

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[None]:
        """A stage that raises is not reported as finished."""
        self._stage, self._note = name, ""
        self._listen(Report(name, doing, 0.0))
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)
        self._listen(Report(name, self._note, 1.0, self.seconds[name]))

    def step(self, done: int, total: int) -> None:
        """Progress within the current stage."""
        self._listen(Report(self._stage, f"{done} of {total}", done / max(total, 1)))

    def say(self, note: str) -> None:
        """Progress within the current stage, in words."""
        self._listen(Report(self._stage, note))

    def result(self, note: str) -> None:
        """What the current stage came to; said at its end."""
        self._note = note
