"""The processes of one machine as one thing: redis, front, worker. Used by up, down, demo, tests.

home/run/stack.json remembers the processes that were started, so that another program can stop
them. All their descendants carry a mark in their environment, by which they are found even after
their parent was killed, and whatever session they put themselves in.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import httpx
import psutil

from models.errors import LensError, Unavailable
from services.common import embedded_redis
from services.common.broker import Broker
from services.common.settings import Settings
from services.explain.canary import at_work

ORDER = ("redis", "front", "worker")
GRACE = 10.0
_LOG_LIMIT = 10 << 20
PORTS = range(20_000, 32_000)  # Linux gives connections 32768 and up, others 49152 and up
_MARK = "LESIONLENS_MEMBER"


@dataclass(frozen=True)
class Member:
    """A started process; `created` tells it from a later one with the same pid."""

    pid: int
    created: float

    @property
    def process(self) -> psutil.Process | None:
        """The living process, or None."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < 1.0
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


class Stack:
    """start, wait_ready, kill, start_one, stop; as a context manager: start, and stop in the end.

    settings.home holds everything: data, logs, the process file. bundle: folder of the bundle, or
    a name in the model store; None takes settings.bundle. Raises LensError, one line each: a busy
    port, a process that ended.
    """

    def __init__(self, settings: Settings, bundle: Path | str | None = None) -> None:
        chosen = str(bundle or settings.bundle or "")
        self.settings = settings.model_copy(
            update={
                "home": settings.home.resolve(),
                "bundle": _absolute(chosen) if chosen else None,
                "store": settings.models.parents[1],
            }
        )
        if self.settings.inference_url is None:
            # The worker must ask where the front door listens, which may be one address only.
            self.settings = self.settings.model_copy(update={"inference_url": self.url})
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Stack:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where a client on this machine finds the front door."""
        anywhere = self.settings.host in ("0.0.0.0", "::", "")  # noqa: S104
        host = "127.0.0.1" if anywhere else self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"

    @property
    def grpc(self) -> str | None:
        """Where a client on this machine finds gRPC, or None."""
        port = self.settings.grpc
        return None if port is None else f"{urlsplit(self.url).netloc.rpartition(':')[0]}:{port}"

    @property
    def names(self) -> tuple[str, ...]:
        """The processes that belong here: no redis where the settings name one."""
        return tuple(n for n in ORDER if n != "redis" or self.settings.redis_url is None)

    def alive(self) -> dict[str, Member]:
        """Members that run now, whoever started them."""
        return {n: m for n, m in self._recorded().items() if m.process is not None}

    def running_at(self) -> str:
        """The address that the running processes were started with."""
        try:
            return str(json.loads(self._file.read_text("utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError):
            return self.url

    def log(self, name: str) -> Path:
        return self.settings.home / "logs" / f"{name}.log"

    def start(self) -> None:
        """Start what is not running."""
        running = self.alive()
        missing = [n for n in self.names if n not in running]
        for name in missing:
            self._sweep(name)  # what a parent that was killed has left behind
            self._check_port(name)
        for name in missing:
            self._spawn(name)

    def start_one(self, name: str) -> None:
        """Start one process again after it was killed."""
        if name not in self.names:
            raise ValueError(f"no such process here: {name!r}")
        if name not in self.alive():
            self._sweep(name)
            self._check_port(name)
            self._spawn(name)

    def wait_ready(self, seconds: float = 120.0) -> None:
        """Until redis and the front door answer and a worker takes a task out of the queue."""
        end = time.monotonic() + seconds
        broker = Broker(self.settings)
        try:
            self._until(end, "redis", lambda: _answers(broker))
        finally:
            broker.close()
        self._until(end, "front", self._front_ready)
        left = max(end - time.monotonic(), 1.0)
        if not at_work(self.settings, left, check=self._check_running):
            raise self._not_ready("worker")

    def kill(self, name: str) -> None:
        """kill -9 of a process and all its descendants, and wait until they are gone."""
        self._sweep(name)

    def stop(self, grace: float = GRACE) -> None:
        """SIGTERM, then SIGKILL after `grace` seconds; redis last. Leaves nothing running."""
        running = self.alive()
        for group in (("worker", "front"), ("redis",)):
            here = {n: running[n] for n in group if n in running}
            for member in here.values():
                # Only the leader: Celery's children would drop their task on SIGTERM.
                _signal(member.pid, signal.SIGTERM)
            end = time.monotonic() + grace
            for name, member in here.items():
                self._reap(name, member, max(end - time.monotonic(), 0.0))
            for name in group:
                self._sweep(name)
        self._file.unlink(missing_ok=True)

    def ended(self) -> list[str]:
        """Processes that were started and are gone."""
        running = self.alive()
        return [n for n in self._recorded() if n not in running]

    # -- how ------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.settings.home / "run" / "stack.json"

    def _recorded(self) -> dict[str, Member]:
        try:
            content = json.loads(self._file.read_text("utf-8"))
            return {n: Member(**m) for n, m in content["processes"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _record(self, name: str, member: Member) -> None:
        members = self._recorded() | {name: member}
        content = {
            "address": self.url,
            "processes": {n: asdict(m) for n, m in members.items()},
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(content, indent=1), "utf-8")
        beside.replace(self._file)

    def _command(self, name: str) -> list[str]:
        if name == "redis":
            return embedded_redis.command(self.settings)
        module = {"front": "services.front.serve", "worker": "services.explain.worker"}[name]
        return [sys.executable, "-m", module]

    def _spawn(self, name: str) -> None:
        command = self._command(name)
        path = self.log(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        environment = os.environ | self.settings.environment() | {"PYTHONUNBUFFERED": "1"}
        environment[_MARK] = self._mark(name)
        with path.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._children[name] = child
        self._record(name, Member(child.pid, psutil.Process(child.pid).create_time()))

    def _mark(self, name: str) -> str:
        return f"{name}@{self.settings.home}"

    def _sweep(self, name: str) -> None:
        """SIGKILL for this member and all that carries its mark; returns when they are gone."""
        found = _marked(self._mark(name))
        member = self.alive().get(name)
        leader = member.process if member is not None else None
        if leader is not None:  # Redis writes its title over its environment
            with contextlib.suppress(psutil.Error):
                found = [*{*found, leader, *leader.children(recursive=True)}]
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        child = self._children.get(name)
        if child is not None and any(p.pid == child.pid for p in found):
            child.wait()
        psutil.wait_procs([p for p in found if child is None or p.pid != child.pid], timeout=5)

    def _check_port(self, name: str) -> None:
        given = self.settings
        doors: dict[str, int | None] = {"port": given.port, "grpc_port": given.grpc}
        redis: dict[str, int | None] = {"redis_port": given.redis_port}
        ports = {"redis": redis, "front": doors}.get(name, {})
        host = given.host if name == "front" else "127.0.0.1"
        for option, port in ports.items():
            if port and not _free(host, port):
                raise LensError(
                    "the port is in use by another program",
                    code="port_busy",
                    field=option,
                    found=str(port),
                    expected=f"a free one: --{option.replace('_', '-')} N",
                )

    def _until(self, end: float, name: str, ready: Callable[[], bool]) -> None:
        while not ready():
            self._check_running()
            if time.monotonic() > end:
                raise self._not_ready(name)
            time.sleep(0.1)

    def _front_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _check_running(self) -> None:
        for name, child in self._children.items():
            if child.poll() is not None and name not in self.alive():
                raise LensError(
                    f"{name} ended: {self._last_words(name)}",
                    code="process_ended",
                    expected=f"see {self.log(name)}",
                )

    def _not_ready(self, name: str) -> LensError:
        return LensError(
            f"{name} is not ready in time: {self._last_words(name)}",
            code="not_ready",
            expected=f"see {self.log(name)}",
        )

    def _last_words(self, name: str) -> str:
        try:
            lines = self.log(name).read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][:300] if lines else "it said nothing"

    def _reap(self, name: str, member: Member, seconds: float) -> None:
        """Wait for the process to end; collect it where it is our child."""
        end = time.monotonic() + seconds
        child = self._children.get(name)
        while member.process is not None and time.monotonic() < end:
            if child is not None:
                child.poll()
            time.sleep(0.05)
        if child is not None and child.pid == member.pid:
            child.poll()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on right now, on this machine.

    From below those that outgoing connections are given, one of which could take a port before its
    server has started.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):  # whatever seed is set
        if len(ports) == count:
            break
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            ports.append(port)
    return ports


def _absolute(bundle: str) -> str:
    """A folder as its full path; a name in the model store as it is."""
    return bundle if ":" in bundle else str(Path(bundle).resolve())


def _answers(broker: Broker) -> bool:
    try:
        broker.check()
    except Unavailable:
        return False
    return True


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


def _marked(mark: str) -> list[psutil.Process]:
    """Living processes of this user whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == mark:
                found.append(process)
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
