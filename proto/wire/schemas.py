"""Writes the JSON schemas of the contract beside this package.

python -m wire.schemas            write proto/*.schema.json
python -m wire.schemas --check    exit 1, naming each file, where the files are not up to date
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from wire.api import (
    BatchAccepted,
    BatchStatus,
    ExplanationParameters,
    JobList,
    JobStatus,
    PredictionResponse,
    Problem,
)
from wire.bundle import Manifest
from wire.cohort import CohortFile
from wire.explanation import Explanation
from wire.variant import VariantRecord

FOLDER = Path(__file__).resolve().parents[1]
DIALECT = "https://json-schema.org/draft/2020-12/schema"

DOCUMENTS: dict[str, type[BaseModel]] = {
    "explanation": Explanation,
    "cohort": CohortFile,
    "bundle": Manifest,
    "variant": VariantRecord,
}
API: tuple[type[BaseModel], ...] = (
    PredictionResponse,
    ExplanationParameters,
    JobStatus,
    BatchAccepted,
    BatchStatus,
    JobList,
    Problem,
)


def schemas() -> dict[str, bytes]:
    """File name -> content. api.schema.json holds every API message under '$defs'."""
    files: dict[str, dict[str, Any]] = {
        name: {"$schema": DIALECT, **message.model_json_schema(by_alias=True)}
        for name, message in DOCUMENTS.items()
    }
    _, api = models_json_schema([(message, "validation") for message in API], by_alias=True)
    files["api"] = {"$schema": DIALECT, "title": "Messages of the HTTP API", **api}
    return {
        f"{name}.schema.json": (
            json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        ).encode("utf-8")
        for name, schema in files.items()
    }


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of the schema files that are missing or differ from the messages."""
    return [
        name
        for name, content in schemas().items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m wire.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on drift")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.check:
        for name in stale(options.folder):
            print(f"{name} is out of date: run python -m wire.schemas", file=sys.stderr)
        return 1 if stale(options.folder) else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, content in schemas().items():
        (options.folder / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
