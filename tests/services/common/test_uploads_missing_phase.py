"""A phase left out of an upload: accepted in every form where the bundle allows it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from starlette.requests import Request

from models.errors import InputError
from models.volume import Study, Volume
from services.common.settings import Settings
from services.common.uploads import read_study

PHASES = ("arterial", "portal_venous", "delayed")
BOX = "8,8,4,20,20,10"
SETTINGS = Settings(_env_file=None, max_volume_mb=16)


def read(
    body: bytes, kind: str, query: Mapping[str, str] | None = None, optional: Any = PHASES[1:]
) -> Study:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"content-type", kind.encode())],
        "query_string": urlencode(query or {}).encode(),
    }
    return asyncio.run(read_study(Request(scope, receive), PHASES, SETTINGS, optional))


def form(files: Mapping[str, Any], **fields: str) -> tuple[bytes, str]:
    parts = [*files.items(), *((k, (None, v)) for k, v in fields.items())]
    request = httpx.Request("POST", "http://test", files=parts)
    return request.read(), request.headers["content-type"]


def npy(volumes: Mapping[str, Volume], phases: list[str]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.stack([volumes[p].data for p in phases]))
    return buffer.getvalue()


def same(study: Study, volumes: Mapping[str, Volume]) -> None:
    assert study.phases == PHASES
    assert study.missing == ("portal_venous",)
    assert list(study.volumes) == list(study.boxes) == ["arterial", "delayed"]
    for phase, volume in study.volumes.items():
        np.testing.assert_array_equal(volume.data, volumes[phase].data)
        assert study.boxes[phase].as_list() == [[8, 8, 4], [20, 20, 10]]


def test_every_form_may_leave_out_an_optional_phase(
    volumes: dict[str, Volume], files: dict[str, Any]
) -> None:
    two = {p: files[p] for p in ("arterial", "delayed")}
    same(read(*form(two, box=BOX)), volumes)
    same(read(*form(two, **{f"box.{p}": BOX for p in two})), volumes)
    coded = {p: {"nifti": base64.b64encode(f[1]).decode()} for p, f in two.items()}
    for box in (BOX, {p: [[8, 8, 4], [20, 20, 10]] for p in two}):
        body = json.dumps({"phases": coded, "box": box}).encode()
        same(read(body, "application/json"), volumes)
    query = {"spacing": "1.5,1.5,3", "box": BOX}
    for order in (["arterial", "delayed"], ["delayed", "arterial"]):
        more = {**query, "phases": ",".join(order)}
        same(read(npy(volumes, order), "application/x-npy", more), volumes)


def test_a_complete_upload_lacks_nothing(files: dict[str, Any]) -> None:
    assert read(*form(files, box=BOX)).missing == ()


@pytest.mark.parametrize(
    ("leave_out", "optional", "field"),
    [
        ("delayed", (), "delayed"),
        ("delayed", ("portal_venous",), "delayed"),
        ("arterial", PHASES[1:], "arterial"),
    ],
)
def test_any_other_phase_is_refused_by_name(
    files: dict[str, Any], leave_out: str, optional: tuple[str, ...], field: str
) -> None:
    with pytest.raises(InputError, match=f"missing phase: {field}") as refused:
        read(*form({p: f for p, f in files.items() if p != leave_out}, box=BOX), optional=optional)
    assert (refused.value.code, refused.value.field) == ("missing_phase", field)


def test_a_box_for_the_phase_left_out_is_refused(files: dict[str, Any]) -> None:
    two = {p: files[p] for p in ("arterial", "portal_venous")}
    with pytest.raises(InputError) as refused:
        read(*form(two, **{f"box.{p}": BOX for p in PHASES}))
    assert (refused.value.code, refused.value.field) == ("wrong_box", "box.delayed")


@pytest.mark.parametrize(
    ("phases", "code", "field"),
    [
        ("arterial,t2", "unknown_field", "phases"),
        ("arterial,arterial", "unknown_field", "phases"),
        ("arterial,", "unknown_field", "phases"),
        ("arterial", "wrong_shape", "body"),
        ("portal_venous,delayed", "missing_phase", "arterial"),
    ],
)
def test_an_array_that_does_not_say_its_phases_well(
    volumes: dict[str, Volume], phases: str, code: str, field: str
) -> None:
    query = {"spacing": "1.5,1.5,3", "box": BOX, "phases": phases}
    with pytest.raises(InputError) as refused:
        read(npy(volumes, ["arterial", "delayed"]), "application/x-npy", query)
    assert (refused.value.code, refused.value.field) == (code, field)
