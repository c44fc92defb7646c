"""Environments of the peers: made once, kept while their requirements stay the same."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.registry import HERE, Peer

HOME = Path(__file__).resolve().parents[1] / "build" / "bench"


def python_of(peer: Peer) -> Path:
    """The interpreter of the peer's environment. Raises RuntimeError where pip fails."""
    requirements = HERE / f"requirements-{peer.requirements}.txt"
    folder = HOME / f"venv-{peer.requirements}"
    python = folder / "bin" / "python"
    stamp = folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted and python.exists():
        return python
    print(f"installing {requirements.name} (once)", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check",
         "-r", str(requirements)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"pip could not install {requirements.name}: {done.stderr[-300:]}")
    stamp.write_text(wanted)
    return python


def version_of(peer: Peer, python: Path) -> str:
    """The version of the peer's package that is installed."""
    code = f"from importlib.metadata import version; print(version({peer.package!r}))"
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
