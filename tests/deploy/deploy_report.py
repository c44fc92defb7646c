"""build/deploy/report.json: what the deploy tests measured, for people and machines."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Report:
    """A new file a run: nothing of an earlier run stays in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        commit = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.values: dict[str, Any] = {
            "made_by": "pytest -m deploy",
            "version": commit.stdout.strip() or "no commit",
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.platform()}, {os.cpu_count()} cores",
            "seed": 0,
            "seconds": {},
        }

    def add(self, **values: Any) -> None:
        """Set keys; `seconds` is merged. Written at once, so that a failed run leaves a report."""
        seconds = {k: round(v, 1) for k, v in values.pop("seconds", {}).items()}
        self.values.update(values)
        self.values["seconds"].update(seconds)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.values, indent=2) + "\n", encoding="utf-8")
