"""Machine-readable results: every file says what made it, from which commit, when and where."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def write_record(path: Path, data: dict[str, Any], *, made_by: str, seed: int) -> None:
    """Write `data` as JSON with the keys made_by, version, when, machine and seed added."""
    head = {
        "made_by": made_by,
        "version": _commit() or version("lesionlens"),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {platform.system()} {platform.release()}",
        "seed": seed,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | data, indent=1, allow_nan=False) + "\n", "utf-8")


def _commit() -> str | None:
    """The commit of the checkout that holds this file, with '+' where it was changed."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
