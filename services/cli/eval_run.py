"""Runs the parts of an evaluation, two processes side by side, and says how it goes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from services.cli.eval_parts import finished, run_part
from services.cli.eval_plan import Keys, Plan, needs

# These use both cores by themselves and go alone.
ALONE = ("cohort", "arrays")


class Stopped(Exception):
    """Ctrl-C, or a training that was told to stop; what is finished is kept."""


def run_parts(out: Path, plan: Plan, processes: int = 2) -> dict[str, dict[str, Any]]:
    """Every part's figures; parts that are done are not done again. Raises Stopped, LensError."""
    done: dict[str, dict[str, Any]] = {}
    keys = Keys.of(plan)
    with _Screen(plan) as screen:
        for name in ALONE:
            kept = finished(out, plan, keys, name)
            done[name] = kept or _alone(out, plan, keys, name, screen)
            screen.end(name, done[name], kept=kept is not None)
        for name in plan.parts:
            part = finished(out, plan, keys, name) if _ready(name, done) else None
            if part and name not in done:
                done[name] = part
                screen.end(name, part, kept=True)
        if processes < 2:
            for name in _rest(plan, done):
                done[name] = _alone(out, plan, keys, name, screen)
                screen.end(name, done[name])
        else:
            _side_by_side(out, plan, keys, processes, done, screen)
    return done


def _rest(plan: Plan, done: dict[str, Any]) -> list[str]:
    return [name for name in plan.parts if name not in done]


def _ready(name: str, done: dict[str, Any]) -> bool:
    return all(before in done for before in needs(name))


def _alone(out: Path, plan: Plan, keys: Keys, name: str, screen: _Screen) -> dict[str, Any]:
    screen.start(name)
    try:
        return run_part(out, plan, keys, name, lambda note, share: screen.tell(name, note, share))
    except KeyboardInterrupt:
        raise Stopped from None


def _side_by_side(
    out: Path,
    plan: Plan,
    keys: Keys,
    processes: int,
    done: dict[str, dict[str, Any]],
    screen: _Screen,
) -> None:
    # Forked children of a process with threads can hang; fresh ones cannot.
    context = multiprocessing.get_context("spawn")
    running: dict[Future[dict[str, Any]], str] = {}
    channel = context.Queue()
    with ProcessPoolExecutor(
        processes,
        mp_context=context,
        initializer=_join,
        initargs=(channel,),
        max_tasks_per_child=1,
    ) as pool:
        try:
            while len(done) < len(plan.parts):
                busy = set(running.values())
                for name in _rest(plan, done):
                    if len(running) < processes and name not in busy and _ready(name, done):
                        future = pool.submit(_in_process, out, plan, keys, name)
                        running[future] = name
                        busy.add(name)
                        screen.start(name)
                _listen(channel, screen)
                for future in [f for f in running if f.done()]:
                    name = running.pop(future)
                    done[name] = future.result()
                    screen.end(name, done[name])
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            for future in running:
                future.cancel()


def _listen(channel: Any, screen: _Screen) -> None:
    """Pass on what the processes say, for half a second."""
    until = time.monotonic() + 0.5
    while (left := until - time.monotonic()) > 0:
        try:
            screen.tell(*channel.get(timeout=left))
        except queue.Empty:
            return


_CHANNEL: list[Any] = []  # of a child process: where it says how far it is


def _join(channel: Any) -> None:
    _CHANNEL[:] = [channel]


def _in_process(out: Path, plan: Plan, keys: Keys, name: str) -> dict[str, Any]:
    from services.training.fit import Interrupted

    def tell(note: str, share: float | None) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)  # killed: nobody waits for this part, and its checkpoints are on disk
        _CHANNEL[0].put((name, note, share))

    try:
        return run_part(out, plan, keys, name, tell)
    except Interrupted:
        raise KeyboardInterrupt from None


class _Screen:
    """A bar a part on a terminal; elsewhere a line when a part starts, ends, and every minute."""

    def __init__(self, plan: Plan) -> None:
        self._parts = plan.parts
        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:<12}"), BarColumn(24), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=self._console, transient=False,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._over: set[str] = set()

    def __enter__(self) -> _Screen:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def start(self, name: str) -> None:
        if self._console.is_terminal:
            self._tasks[name] = self._bars.add_task(name, total=1.0, note="")
        else:
            left = len(self._parts) - len(self._over)
            click.echo(f"{name:<12} starts; {left} of {len(self._parts)} parts to go", err=True)
        self._said[name] = time.monotonic()

    def tell(self, name: str, note: str, share: float | None) -> None:
        if name in self._over:  # said before it ended, heard after
            return
        if self._console.is_terminal:
            task = self._tasks[name]
            self._bars.update(task, note=note[:70])
            if share is not None:
                self._bars.update(task, completed=min(share, 0.999))
        elif time.monotonic() - self._said.get(name, 0.0) > 60:
            self._said[name] = time.monotonic()
            click.echo(f"{name:<12} {note}", err=True)

    def end(self, name: str, part: dict[str, Any], kept: bool = False) -> None:
        self._over.add(name)
        note = _summary(part) + (" (kept from an earlier run)" if kept else "")
        if self._console.is_terminal:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=1.0, note="")
            self._bars.update(self._tasks[name], completed=1.0, note=note)
            self._bars.stop_task(self._tasks[name])
        else:
            click.echo(f"{name:<12} {part['seconds']:7.1f} s  {note}".rstrip(), err=True)


def _summary(part: dict[str, Any]) -> str:
    if "classifier" in part:
        row = part["classifier"]
        return f"{part['n_train']} lesions: accuracy {row['accuracy']:.3f}, ECE {row['ece']:.3f}"
    if "ood" in part:
        worst = min(part["ood"].items(), key=lambda item: item[1]["auroc"])
        return f"lowest AUROC {worst[1]['auroc']:.3f} ({worst[0]})"
    return "done"
