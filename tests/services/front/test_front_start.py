"""What a start imports, and what it leaves for later: seconds of a cold start hang on it."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from services.front import later
from services.front.entrance import Entrance

SHOW = "import sys; print(' '.join(m for m in {names!r} if m in sys.modules))"


def imported(statement: str, names: list[str]) -> set[str]:
    """Those of the names that a fresh process has imported after the statement."""
    code = f"{statement}\n{SHOW.format(names=names)}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LESIONLENS_SUPERVISED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_supervisor_imports_little() -> None:
    heavy = ["fastapi", "onnxruntime", "sqlalchemy", "scipy", "models.bundle.read", "redis"]
    assert imported("import services.front.service", ["bentoml", *heavy]) == {"bentoml"}


def test_the_worker_leaves_what_tensors_do_not_need() -> None:
    late = ["scipy", "nibabel", "pydicom", "celery", "torch", "tritonclient", "matplotlib"]
    assert imported("import services.front.app", ["fastapi", *late]) == {"fastapi"}
    assert {"scipy", "nibabel", "celery"} <= imported(
        "import asyncio\nfrom services.front.later import import_the_rest\n"
        "asyncio.run(import_the_rest())",
        late,
    )


def test_nothing_is_collected_while_it_starts_and_again_afterwards() -> None:
    statement = (
        "import gc, services.front.service\nassert not gc.isenabled()\n"
        "services.front.garbage.resume()\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 1000"
    )
    assert imported(statement, ["services.front.service"])


def test_a_package_that_is_not_there_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(later, "PACKAGES", ("nothing_of_this_name", "this"))
    monkeypatch.setattr(logging.getLogger("lesionlens"), "propagate", True)
    sys.modules.pop("this", None)
    asyncio.run(later.import_the_rest())
    assert "this" in sys.modules
    assert "nothing_of_this_name cannot be imported" in caplog.text


@pytest.mark.parametrize(
    ("scope", "whose"),
    [
        ({"type": "lifespan"}, "bento"),
        ({"type": "http", "path": "/livez"}, "bento"),
        ({"type": "http", "path": "/readyz"}, "bento"),
        ({"type": "http", "path": "/metrics"}, "ours"),
        ({"type": "http", "path": "/schema.json"}, "ours"),
        ({"type": "http", "path": "/v2/models/classifier/infer"}, "ours"),
        ({"type": "websocket", "path": "/"}, "ours"),
    ],
)
def test_bentoml_sees_health_and_the_start_alone(scope: dict[str, Any], whose: str) -> None:
    seen = []

    def app(name: str) -> Any:
        async def answer(*_: Any) -> None:
            seen.append(name)

        return answer

    asyncio.run(Entrance(app("bento"), app("ours"))(scope, None, None))  # type: ignore[arg-type]
    assert seen == [whose]
