"""The app of a following service: what it says of itself changes with the bundle that it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

from models.bundle.read import read_bundle
from models.bundle.write import write_bundle
from models.vocabulary import Vocabulary, liver_mri
from services.common.settings import Settings
from services.common.store import PRODUCTION, register
from services.front.app import FrontDoor, create_app
from tests.models.bundle import tiny_onnx


def _renamed() -> Vocabulary:
    """Our vocabulary, its phases called early, middle and late."""
    vocabulary = liver_mri()
    names = zip(("early", "middle", "late"), vocabulary.phases, strict=True)
    phases = [phase.model_copy(update={"id": name}) for name, phase in names]
    features = [f.model_copy(update={"judged_on": []}) for f in vocabulary.features]
    return vocabulary.model_copy(update={"phases": phases, "features": features})


def _fields(app: FrontDoor) -> list[tuple[set[str], list[str]]]:
    """Fields and required fields of the two uploads."""
    found = []
    for path in ("/v1/predictions", "/v1/explanations"):
        body = app.openapi()["paths"][path]["post"]["requestBody"]["content"]
        form = body["multipart/form-data"]["schema"]
        found.append((set(form["properties"]), form["required"]))
    return found


def test_the_api_describes_the_phases_of_the_bundle_that_is_served(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path / "home", bundle=PRODUCTION, redis_url="redis://127.0.0.1:1/0"
    )
    write_bundle(tmp_path / "a", tiny_onnx.parts(0))
    other = tiny_onnx.parts(1, vocabulary=_renamed(), optional_phases=["late"])
    write_bundle(tmp_path / "b", other)
    for name in "ab":
        register(tmp_path / name, settings)
    app = create_app(read_bundle(tmp_path / "a"), settings)
    for fields, required in _fields(app):
        assert {"arterial", "portal_venous", "delayed"} <= fields
        assert "delayed" in required

    async def swap() -> None:
        await app.fleet.load()
        await app.fleet.swap(read_bundle(tmp_path / "b").hash)
        for fields, required in _fields(app):
            assert {"early", "middle", "late"} <= fields
            assert not {"arterial", "portal_venous", "delayed"} & fields
            assert "early" in required
            assert "late" not in required
        await app.fleet.close()

    asyncio.run(swap())
