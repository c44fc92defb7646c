"""lesionlens up and down, as a person runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from models.errors import LensError
from services.cli.stack import PORTS, Stack, free_ports
from services.common.settings import Settings

ROOT = Path(__file__).parents[3]


class Shell:
    """Runs the command line with a home and ports of its own."""

    def __init__(self, home: Path, bundle: Path) -> None:
        self.home = home
        self.port, self.grpc_port, self.redis_port = free_ports(3)
        self.options = ["--home", str(home), "--bundle", str(bundle)]
        for name in ("port", "grpc_port", "redis_port"):
            self.options += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LESIONLENS_")}
        self.environment = clean

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        text, _ = process.communicate(timeout=120)
        return process.returncode, text

    def down(self) -> tuple[int, str]:
        return self.run("down", "--home", str(self.home))

    def pids(self) -> dict[str, int]:
        content = json.loads((self.home / "run" / "stack.json").read_text())
        return {name: member["pid"] for name, member in content["processes"].items()}

    def ready(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/readyz"
        try:
            return httpx.get(url, trust_env=False, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def shell(tmp_path: Path, tiny_bundle: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "home", tiny_bundle)
    yield shell
    Stack(Settings(home=shell.home)).stop()


def gone(pids: list[int], seconds: float = 10) -> bool:
    """True when none of these runs any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = [p for p in pids if psutil.pid_exists(p)]
        if all(psutil.Process(p).status() == psutil.STATUS_ZOMBIE for p in left):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.system
def test_up_twice_and_down_twice(shell: Shell) -> None:
    code, text = shell.run("up", *shell.options)
    assert code == 0, text
    assert f"http://127.0.0.1:{shell.port}" in text
    assert f"gRPC: 127.0.0.1:{shell.grpc_port}" in text
    assert shell.ready()
    with socket.create_connection(("127.0.0.1", shell.grpc_port), timeout=5):
        pass
    pids = shell.pids()
    assert set(pids) == {"redis", "front", "worker"}
    assert {p.name for p in (shell.home / "logs").iterdir()} >= {"front.log", "worker.log"}

    code, text = shell.run("up", *shell.options)
    assert (code, shell.pids()) == (0, pids)
    assert "already running" in text

    # Somebody kills the front door's leader; what it started must not survive 'down'.
    leader = psutil.Process(pids["front"])
    everyone = [*pids.values(), *(c.pid for c in leader.children(recursive=True))]
    leader.kill()
    code, text = shell.down()
    assert code == 0
    assert "worker" in text
    assert gone(everyone)
    assert not shell.ready()
    assert shell.down() == (0, "nothing was running\n")


@pytest.mark.system
def test_foreground_starts_a_dead_worker_again_and_stops_on_sigterm(shell: Shell) -> None:
    process = shell.start("up", "--foreground", *shell.options)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready in ")
        first = shell.pids()
        os.kill(first["worker"], signal.SIGKILL)
        end = time.monotonic() + 15
        while shell.pids()["worker"] == first["worker"]:
            assert time.monotonic() < end
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert gone([*first.values(), *Stack(Settings(home=shell.home)).alive()])  # type: ignore[list-item]
    finally:
        process.kill()


@pytest.mark.parametrize("which", ["port", "grpc_port", "redis_port"])
def test_a_busy_port_is_one_clear_line(shell: Shell, which: str) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", getattr(shell, which)))
        busy.listen()
        code, text = shell.run("up", *shell.options)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert str(getattr(shell, which)) in text
    assert f"--{which.replace('_', '-')} N" in text
    assert not (shell.home / "run" / "stack.json").exists()


def test_a_bundle_that_is_not_there_is_one_clear_line(shell: Shell, tmp_path: Path) -> None:
    code, text = shell.run("up", *shell.options, "--bundle", str(tmp_path / "nothing"))
    assert code == 2
    assert len(text.splitlines()) == 1
    assert "Traceback" not in text


def test_a_wrong_setting_is_one_clear_line(shell: Shell) -> None:
    shell.environment["LESIONLENS_JOB_SECONDS"] = "soon"
    code, text = shell.run("up", *shell.options)
    assert code == 2
    assert len(text.splitlines()) == 1
    assert "LESIONLENS_JOB_SECONDS" in text
    assert "'soon'" in text


def test_free_ports_are_several_and_no_connection_is_given_one() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < first
    with socket.create_server(("127.0.0.1", ports[0])):
        assert ports[0] not in free_ports(len(PORTS))


def test_a_process_that_ends_at_once_says_why(tmp_path: Path, tiny_bundle: Path) -> None:
    port, redis_port = free_ports(2)
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with (bundle / "probes.json").open("ab") as f:
        f.write(b" ")  # one byte that the checksum does not know
    settings = Settings(home=tmp_path, port=port, redis_port=redis_port, bundle=bundle)
    with pytest.raises(LensError) as ended, Stack(settings):
        pass
    assert ended.value.code == "process_ended"
    assert "probes.json" in ended.value.line
    assert "Traceback" not in ended.value.line
    assert Stack(settings).alive() == {}


def test_the_procfile_names_the_same_processes(tmp_path: Path) -> None:
    lines = [line for line in (ROOT / "Procfile").read_text().splitlines() if line[:1] != "#"]
    named = dict(line.split(": ", 1) for line in lines)
    stack = Stack(Settings(home=tmp_path))
    assert set(named) == set(stack.names)
    for name in ("front", "worker"):
        assert named[name] == "python " + " ".join(stack._command(name)[1:])
