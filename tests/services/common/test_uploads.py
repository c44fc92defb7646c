"""Every form of an upload gives the same study; whatever is off is named."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import pickle
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from models.cohort.nifti import nifti_bytes
from models.errors import InputError, LensError, UnsupportedMedia
from models.volume import Study, Volume
from services.common.settings import Settings
from services.common.uploads import ACCEPTED, Upload, read_study, read_upload

PHASES = ("arterial", "portal_venous", "delayed")
BOX = "8,8,4,20,20,10"
SETTINGS = Settings(_env_file=None, max_volume_mb=16)


def read(
    body: bytes,
    content_type: str,
    query: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
    chunk: int = 1000,
) -> Upload:
    """Feed a body to `read_upload` in chunks, as a server would."""
    parts = [body[i : i + chunk] for i in range(0, len(body), chunk)] or [b""]
    messages = iter(
        {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)}
        for i, part in enumerate(parts)
    )

    async def receive() -> Any:
        return next(messages)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"content-type", content_type.encode("latin-1"))],
        "query_string": urlencode(query or {}).encode(),
    }
    return asyncio.run(read_upload(Request(scope, receive), PHASES, SETTINGS, options))


def form(fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """Encode a form with the real client. A tuple is a file part."""
    files = [(k, v if isinstance(v, tuple) else (None, v)) for k, v in fields.items()]
    request = httpx.Request("POST", "http://test", files=files)
    return request.read(), request.headers["content-type"]


def stacked(volumes: Mapping[str, Volume]) -> np.ndarray:
    return np.stack([volumes[p].data for p in PHASES])


def npy(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def same(study: Study, volumes: Mapping[str, Volume]) -> None:
    assert list(study.volumes) == list(PHASES)
    for phase, volume in study.volumes.items():
        np.testing.assert_array_equal(volume.data, volumes[phase].data)
        np.testing.assert_allclose(volume.affine, volumes[phase].affine)
        assert study.boxes[phase].as_list() == [[8, 8, 4], [20, 20, 10]]


def test_all_forms_are_one_study(volumes: dict[str, Volume], files: dict[str, Any]) -> None:
    body, kind = form({**files, "box": BOX, "activations": "fc"})
    upload = read(body, kind, options=("activations",))
    same(upload.study, volumes)
    assert upload.options == {"activations": "fc"}

    query = {"spacing": "1.5,1.5,3", "box": BOX, "activations": "fc"}
    upload = read(npy(stacked(volumes)), "application/x-npy", query, ("activations",))
    same(upload.study, volumes)
    assert upload.options == {"activations": "fc"}

    nifti = {p: {"nifti": base64.b64encode(f[1]).decode()} for p, f in files.items()}
    boxes = {p: [[8, 8, 4], [20, 20, 10]] for p in PHASES}
    for message in (
        {"phases": nifti, "box": [[8, 8, 4], [20, 20, 10]], "activations": ["fc"]},
        {"phases": nifti, "box": boxes, "activations": ["fc"]},
        {
            "phases": {
                p: {"voxels": v.data.tolist(), "spacing": [1.5, 1.5, 3]} for p, v in volumes.items()
            },
            "box": BOX,
            "activations": ["fc"],
        },
        {
            "phases": {
                p: {"voxels": v.data.tolist(), "affine": v.affine.tolist()}
                for p, v in volumes.items()
            },
            "box": BOX,
            "activations": ["fc"],
        },
    ):
        body = json.dumps(message).encode()
        upload = read(body, "application/json; charset=utf-8", options=("activations",))
        same(upload.study, volumes)
        assert upload.options == {"activations": ["fc"]}


def test_a_box_for_each_phase(files: dict[str, Any]) -> None:
    body, kind = form(
        {**files, **{f"box.{p}": f"8,8,4,20,20,{10 + i}" for i, p in enumerate(PHASES)}}
    )
    study = read(body, kind).study
    assert [study.boxes[p].upper[2] for p in PHASES] == [10, 11, 12]


def test_fortran_order_and_integers(volumes: dict[str, Volume]) -> None:
    array = np.asfortranarray(np.rint(stacked(volumes)).astype(">i2"))
    study = read(npy(array), "application/x-npy", {"spacing": "1,1,1", "box": BOX}).study
    np.testing.assert_array_equal(study.volumes["delayed"].data, array[2].astype(np.float32))


def refused(
    body: bytes, kind: str, query: Mapping[str, str] | None = None, options: tuple[str, ...] = ()
) -> LensError:
    with pytest.raises(LensError) as caught:
        read(body, kind, query, options)
    assert caught.value.line
    return caught.value


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"delayed": None}, "missing_phase", "delayed"),
        ({"box": None}, "wrong_box", "box"),
        ({"box": "1,2,3"}, "wrong_box", "box"),
        ({"box": "8,8,4,20,20,99"}, "box_outside", "box"),
        ({"box": "-1,8,4,20,20,10"}, "box_outside", "box"),
        ({"box": "8,8,4,8,20,10"}, "wrong_box", "box"),
        ({"box.delayed": BOX}, "wrong_box", "box"),
        ({"box.nothing": BOX}, "unknown_field", "box.nothing"),
        ({"portal": ("a.nii", b"", "x/y")}, "unknown_field", "portal"),
        ({"delayed": "text"}, "not_nifti", "delayed"),
        ({"delayed": ("a.nii", b"", "x/y")}, "not_nifti", "delayed"),
        ({"delayed": ("a.nii", b"hello world" * 99, "x/y")}, "not_nifti", "delayed"),
    ],
)
def test_bad_forms(files: dict[str, Any], change: dict[str, Any], code: str, field: str) -> None:
    fields = {k: v for k, v in ({**files, "box": BOX} | change).items() if v is not None}
    error = refused(*form(fields))
    assert (error.code, error.field) == (code, field)


def test_broken_files(files: dict[str, Any], volumes: dict[str, Volume]) -> None:
    whole = files["delayed"][1]
    for part in (whole[: len(whole) // 2], whole[:-4], whole[:40]):
        error = refused(*form({**files, "delayed": ("a.nii.gz", part, "x/y"), "box": BOX}))
        assert (error.code, error.field) == ("truncated", "delayed")
    data = volumes["delayed"].data.copy()
    data[3, 3, 3] = np.nan
    holed = nifti_bytes(Volume(data, volumes["delayed"].affine))
    error = refused(*form({**files, "delayed": ("a.nii.gz", holed, "x/y"), "box": BOX}))
    assert (error.code, error.field, error.found) == ("not_finite", "delayed", "1 of 10976")
    bomb = nifti_bytes(Volume(np.zeros((400, 400, 40), np.float32), np.eye(4)))
    error = refused(*form({**files, "delayed": ("a.nii.gz", bomb, "x/y"), "box": BOX}))
    assert (error.status, error.field) == (413, "delayed")


def test_a_field_twice(files: dict[str, Any]) -> None:
    parts = [*files.items(), ("box", (None, BOX)), ("box", (None, BOX))]
    request = httpx.Request("POST", "http://test", files=parts)
    assert refused(request.read(), request.headers["content-type"]).field == "box"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"abc", "multipart/form-data"),
        (b"abc", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nabc", "multipart/form-data; boundary=x"),
        (
            b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--",
            "multipart/form-data; boundary=x",
        ),
        (b"", "multipart/form-data; boundary=x"),
    ],
)
def test_broken_multipart(body: bytes, kind: str) -> None:
    assert refused(body, kind).status == 422


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_other_media_types(kind: str) -> None:
    error = refused(b"x", kind)
    assert (error.status, error.expected) == (415, ACCEPTED)


def test_pickles_are_never_read(files: dict[str, Any]) -> None:
    pickled = pickle.dumps({"a": np.zeros(3)})
    array = npy(np.array([{"a": 1}, None, 3], dtype=object), allow_pickle=True)
    query = {"spacing": "1,1,1", "box": BOX}
    for body, kind in [
        (pickled, "application/x-pickle"),
        (pickled, "application/vnd.bentoml+pickle"),
        (pickled, "application/python-pickle"),
        (pickled, "application/x-npy"),
        (array, "application/x-npy"),
        form({**files, "delayed": ("a", pickled, "application/octet-stream"), "box": BOX}),
        form({**files, "delayed": ("a", files["delayed"][1], "application/x-pickle"), "box": BOX}),
    ]:
        with pytest.raises(UnsupportedMedia):
            read(body, kind, query)


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"box": BOX}, "wrong_spacing", "spacing"),
        ({"box": BOX, "spacing": "1,1"}, "wrong_spacing", "spacing"),
        ({"box": BOX, "spacing": "1,1,0"}, "wrong_spacing", "spacing"),
        ({"box": BOX, "spacing": "1,1,nan"}, "wrong_spacing", "spacing"),
        ({"spacing": "1,1,1"}, "wrong_box", "box"),
        ({"box.other": BOX, "spacing": "1,1,1"}, "unknown_field", "box.other"),
    ],
)
def test_bad_queries(volumes: dict, query: dict[str, str], code: str, field: str) -> None:
    error = refused(npy(stacked(volumes)), "application/x-npy", query)
    assert (error.code, error.field) == (code, field)


def test_bad_arrays(volumes: dict[str, Volume]) -> None:
    query = {"spacing": "1,1,1", "box": BOX}
    good = stacked(volumes)
    holed = good.copy()
    holed[1, 0, 0, 0] = np.inf
    for body, code, field in [
        (npy(good[:2]), "wrong_shape", "body"),
        (npy(good[0]), "wrong_shape", "body"),
        (npy(good)[:-5], "truncated", "body"),
        (npy(good) + b"x", "truncated", "body"),
        (npy(good)[:9], "not_npy", "body"),
        (b"", "not_npy", "body"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, "not_npy", "body"),
        (npy(good.astype(complex)), "wrong_dtype", "body"),
        (npy(np.array(["a"])), "wrong_dtype", "body"),
        (npy(holed), "not_finite", "portal_venous"),
    ]:
        error = refused(body, "application/x-npy", query)
        assert (error.code, error.field) == (code, field)
    header = npy(np.zeros((1, 1), np.float32)).replace(b"(1, 1), }", b"(9999999, 9999999), }")
    assert refused(header, "application/x-npy", query).status == 413


def test_bad_json(files: dict[str, Any]) -> None:
    good = {p: {"nifti": base64.b64encode(f[1]).decode()} for p, f in files.items()}
    box = [[8, 8, 4], [20, 20, 10]]
    ragged = {"voxels": [[[1, 2], [3]]], "spacing": [1, 1, 1]}
    words = {"voxels": [[["a"]]], "spacing": [1, 1, 1]}
    for message, code, field in [
        ([], "invalid_input", None),
        ({"phases": good}, "invalid_input", "box"),
        ({"phases": good, "box": box, "passes": 3}, "unknown_field", "passes"),
        ({"phases": {**good, "t2": good["delayed"]}, "box": box}, "unknown_field", "phases.t2"),
        ({"phases": {**good, "delayed": {}}, "box": box}, "invalid_input", "phases.delayed"),
        (
            {"phases": {**good, "delayed": {"nifti": "@"}}, "box": box},
            "not_nifti",
            "phases.delayed.nifti",
        ),
        (
            {"phases": {**good, "delayed": ragged}, "box": box},
            "wrong_shape",
            "phases.delayed.voxels",
        ),
        ({"phases": {**good, "delayed": words}, "box": box}, "wrong_dtype", "delayed"),
        ({"phases": good, "box": {"arterial": box}}, "wrong_box", "box.portal_venous"),
        ({"phases": good, "box": 7}, "wrong_box", "box"),
        ({"phases": {"arterial": good["arterial"]}, "box": box}, "missing_phase", "portal_venous"),
    ]:
        error = refused(json.dumps(message).encode(), "application/json")
        assert (error.code, error.field) == (code, field)
    for body in (b"", b"{", b"\xff", b"[" * 200_000):
        assert refused(body, "application/json").code == "not_json"


KINDS = st.sampled_from(
    ["multipart/form-data; boundary=x", "application/x-npy", "application/json"]
)


@given(
    KINDS, st.binary(max_size=300), st.sampled_from([b"", b"--x\r\n", b"\x93NUMPY\x01\x00", b"{"])
)
@settings(max_examples=200, deadline=None)
def test_noise_is_refused_in_words(kind: str, body: bytes, start: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read(start + body, kind, {"spacing": "1,1,1", "box": BOX})
    assert "\n" not in caught.value.line


def test_read_study_is_the_study_alone(files: dict[str, Any], volumes: dict[str, Volume]) -> None:
    body, kind = form({**files, "box": BOX})

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    same(asyncio.run(read_study(Request(scope, receive), PHASES, SETTINGS)), volumes)
