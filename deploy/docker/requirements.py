"""Prints the core requirements and those of the extras named, one a line, from pyproject.toml.

The image installs them in a layer of their own, so that a change of code rebuilds no packages.
Usage: requirements.py pyproject.toml inference [postgres …]
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """Raises KeyError for an extra that pyproject.toml does not have."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += [line for line in optional[extra] if line not in lines]
    return lines


if __name__ == "__main__":
    print("\n".join(requirements(Path(sys.argv[1]), sys.argv[2:])))
