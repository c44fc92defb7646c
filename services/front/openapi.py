"""proto/openapi.json: the HTTP contract as a file.

python -m services.front.openapi --write    after a route changed
python -m services.front.openapi --check    fails where the file is not what the code says
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import cast

from models.bundle.read import Bundle
from models.vocabulary import liver_mri
from services.common.settings import Settings
from services.front.app import create_app

FILE = Path(__file__).resolve().parents[2] / "proto" / "openapi.json"


def document() -> str:
    """The OpenAPI document, the same bytes on every machine.

    It is shown for the default phases: no other part of a bundle decides the shape of a route, so
    none is needed here.
    """
    shown = SimpleNamespace(
        hash="b-",
        manifest=SimpleNamespace(hash="b-", phases=liver_mri().phase_ids, optional_phases=[]),
    )
    with TemporaryDirectory() as home:
        settings = Settings(home=Path(home), ledger_url="sqlite://", redis_url="redis://localhost")
        app = create_app(cast(Bundle, shown), settings)
        return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write or check proto/openapi.json.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="Write the file.")
    mode.add_argument("--check", action="store_true", help="Exit 1 where it is out of date.")
    wanted = document()
    if parser.parse_args().write:
        FILE.write_text(wanted, "utf-8")
        return 0
    if not FILE.is_file() or FILE.read_text("utf-8") != wanted:
        print("proto/openapi.json is out of date: python -m services.front.openapi --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
