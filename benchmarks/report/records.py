"""The records that the benchmarks left, and safe ways into them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# In the order of the page.
NAMES = ("predict", "explain", "variants", "overload", "scale", "codec", "cold", "probes", "bulk")
Records = Mapping[str, Mapping[str, Any]]


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """name -> record, of those that are there. Raises ValueError for a file that is no record."""
    found: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        record = json.loads(path.read_text("utf-8"))
        if not isinstance(record, dict) or "made_by" not in record:
            raise ValueError(f"{path.name} is not a record")
        found[name] = record
    return found


def at(record: Mapping[str, Any] | None, *path: str) -> Any:
    """The value at a path of keys, or None where any of them is missing."""
    value: Any = record
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def middle(value: Any) -> float | None:
    """A number, or the median of a spread; None for anything else."""
    if isinstance(value, Mapping):
        value = value.get("median")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
