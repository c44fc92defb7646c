"""The stack of docker-compose.yml in a real Docker Engine, as the tests drive it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "deploy" / "tools"
OURS = ("inference", "worker")
_MISSING = 77  # exit code of the tools where something cannot be had here


class MissingError(Exception):
    """Something that the test needs cannot be had here; the message says what."""


def fetch_tool(script: str, folder: Path) -> Path:
    """Run deploy/tools/<script> FOLDER; the path that it prints. Raises MissingError."""
    return Path(_tool(script, str(folder)).strip().splitlines()[-1])


def _tool(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [TOOLS / script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHON": sys.executable},
    )
    if done.returncode == _MISSING:
        raise MissingError(done.stderr.strip().splitlines()[-1].removeprefix("SKIP: "))
    assert done.returncode == 0, f"{script}: {done.stderr[-2000:]}"
    return done.stdout


@dataclass
class Engine:
    """A Docker Engine that answers at `host` (empty: the client's default)."""

    folder: Path
    compose: Path
    host: str
    base_image: str
    stand_in: bool
    private: bool
    seconds: float

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | ({"DOCKER_HOST": self.host} if self.host else {})

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment,
        )
        assert not check or done.returncode == 0, f"docker {arguments[0]}: {done.stderr[-2000:]}"
        return done

    def stop(self) -> None:
        if self.private:
            _tool("engine.sh", "stop", str(self.folder))


def start_engine(folder: Path, compose: Path) -> Engine:
    """The engine that is there, or a private one in `folder`. Raises MissingError."""
    start = time.monotonic()
    try:
        printed = _tool("engine.sh", "start", str(folder), str(os.getpid()))
    except BaseException:
        _tool("engine.sh", "stop", str(folder))
        raise
    found = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    return Engine(
        folder=folder,
        compose=compose,
        host=found["DOCKER_HOST"],
        base_image=found["BASE_IMAGE"],
        stand_in=found["STAND_IN"] == "yes",
        private=found["PRIVATE"] == "yes",
        seconds=time.monotonic() - start,
    )


@dataclass
class Stack:
    """One Compose project of our two images and redis, on a free port of this machine."""

    engine: Engine
    bundle: Path
    work: Path
    project: str = "lesionlens-test"
    port: int = 0
    grpc_port: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with socket.socket() as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.grpc_port = probe.getsockname()[1], other.getsockname()[1]
        copy = self.work / "bundle"
        shutil.copytree(self.bundle, copy)
        # The containers' user is not the tests': the files must be readable by anyone.
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        self.bundle = copy
        self._write_pip_settings()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        ours = {
            "LESIONLENS_BASE_IMAGE": self.engine.base_image,
            "LESIONLENS_BUNDLE": str(self.bundle),
            "LESIONLENS_IMAGE_PREFIX": "lesionlens-test/",
            "LESIONLENS_VERSION": "test",
            "LESIONLENS_PORT": str(self.port),
            "LESIONLENS_GRPC_PORT": str(self.grpc_port),
            "LESIONLENS_TEST_PIP_CONF": str(self.work / "pip.conf"),
            "LESIONLENS_TEST_CA_BUNDLE": str(self.work / "ca.pem"),
            "COMPOSE_BAKE": "false",
            "BUILDKIT_PROGRESS": "plain",
        }
        # The caller's own LESIONLENS_* must not leak into the stack.
        inherited = {
            k: v for k, v in self.engine.environment.items() if not k.startswith("LESIONLENS_")
        }
        return inherited | ours

    def compose(
        self, *arguments: str, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        files = [ROOT / "docker-compose.yml", ROOT / "tests" / "deploy" / "compose.test.yml"]
        # An empty env file: a developer's own .env must not change the test.
        (self.work / "empty.env").touch()
        command = [str(self.engine.compose), "--project-name", self.project]
        command += ["--env-file", str(self.work / "empty.env")]
        command += [part for file in files for part in ("--file", str(file))]
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=self.environment,
        )
        assert not check or done.returncode == 0, (
            f"compose {arguments[0]}: {(done.stdout + done.stderr)[-4000:]}"
        )
        return done

    def build(self) -> None:
        self._timed("build", "build", timeout=600)

    def up(self) -> None:
        """Raises AssertionError with every container's state and last words if not healthy."""
        self.compose("down", "--volumes", "--remove-orphans")  # what a killed run left
        try:
            self._timed("up", "up", "--detach", "--no-build", "--wait", timeout=180)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            state = self.compose("ps", "--all", check=False).stdout
            logs = self.compose("logs", "--tail", "40", check=False).stdout
            raise AssertionError(f"the stack is not healthy: {error}\n{state}\n{logs}") from None

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)

    def run_python(self, service: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python code inside the running container of a service."""
        return self.compose("exec", "-T", service, "python", "-c", code, check=False)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's running container."""
        container = self.compose("ps", "--quiet", service).stdout.strip()
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", container).stdout)[0]
        return found

    def image_mb(self) -> dict[str, float]:
        sizes = {}
        for service in OURS:
            size = self.engine.docker(
                "image", "inspect", "--format", "{{.Size}}", f"lesionlens-test/{service}:test"
            )
            sizes[service] = round(int(size.stdout) / 1e6, 1)
        return sizes

    def _timed(self, name: str, *arguments: str, timeout: float) -> None:
        start = time.monotonic()
        self.compose(*arguments, timeout=timeout)
        self.seconds[name] = time.monotonic() - start

    def _write_pip_settings(self) -> None:
        """This machine's way to the package index, handed to the build as two secrets."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        kept = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
        lines = ["[global]", "retries = 10"]
        for name, value in re.findall(r"^[^=]*?\.([a-z-]+)='(.*)'$", listed, re.MULTILINE):
            if name in kept:
                lines.append(f"{name} = {value}")
        names = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
        candidates = [os.environ.get(n) for n in names] + [ssl.get_default_verify_paths().cafile]
        bundle = next((Path(c) for c in candidates if c and Path(c).is_file()), None)
        (self.work / "ca.pem").write_bytes(bundle.read_bytes() if bundle else b"")
        if bundle:
            lines.append("cert = /run/secrets/ca_bundle")
        (self.work / "pip.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
