"""Real programs for the deploy tests: helm, a Docker Engine, Compose, and the stack brought up.

What cannot be had here skips, with the reason in words; under CI=true it fails, so that a green run
never hides a test that did not run.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_report import Report
from deploy_stack import Engine, MissingError, Stack, fetch_tool, start_engine

BUILD = Path(__file__).parents[2] / "build"


def _without(error: MissingError) -> None:
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must run this test: {error}", pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def deploy_report() -> Report:
    """build/deploy/report.json; each test adds its own keys."""
    return Report(BUILD / "deploy" / "report.json")


@pytest.fixture(scope="session")
def helm() -> Path:
    """A real helm."""
    try:
        return fetch_tool("helm.sh", BUILD / "tools")
    except MissingError as error:
        _without(error)
        raise


@pytest.fixture(scope="module")
def engine(deploy_report: Report) -> Iterator[Engine]:
    """A Docker Engine that answers; a private one is ended afterwards, whatever happened.

    One test run of a checkout has it at a time; another waits.
    """
    folder = BUILD / "deploy"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _engine(deploy_report)


def _engine(deploy_report: Report) -> Iterator[Engine]:
    try:
        compose = fetch_tool("compose.sh", BUILD / "tools")
        engine = start_engine(BUILD / "deploy" / "engine", compose)
    except MissingError as error:
        _without(error)
        raise
    try:
        deploy_report.add(
            base_image=engine.base_image,
            base_image_is_a_stand_in=engine.stand_in,
            seconds={"engine": engine.seconds},
        )
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def stack(
    engine: Engine,
    deploy_report: Report,
    tiny_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """docker-compose.yml, built, up and healthy, serving the tests' bundle; always torn down."""
    stack = Stack(engine, tiny_bundle, tmp_path_factory.mktemp("compose"))
    deploy_report.add(compose_healthy=False)
    try:
        stack.build()
        deploy_report.add(image_mb=stack.image_mb(), seconds={"build": stack.seconds["build"]})
        stack.up()
        deploy_report.add(compose_healthy=True, seconds={"up": stack.seconds["up"]})
        yield stack
    finally:
        stack.down()
