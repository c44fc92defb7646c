"""A study out of an HTTP request: multipart NIfTI, application/x-npy, or JSON.

A phase that the bundle can do without may be left out of any of the three forms.

    request --stream, spooled to disk--> parts --bounded threads--> Volume a phase --> Study

Decoding is CPU and memory; it runs in a few threads, never on the event loop.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import anyio
import anyio.to_thread
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from models.errors import InputError, TooLarge, UnsupportedMedia
from models.volume import Box, Study, Volume
from services.common.limits import refuse_pickle
from services.common.problems import invalid
from services.common.settings import Settings
from wire.upload import PhaseBody, StudyBody

ACCEPTED = "multipart/form-data, application/x-npy or application/json"
NPY_TYPES = ("application/x-npy", "application/npy")
_SPOOL = 1 << 20  # bytes kept in memory before a body goes to disk
_DECODERS = anyio.CapacityLimiter(2)


@dataclass(frozen=True)
class Upload:
    """What a request carried: the study and the route's own options, from query, form or JSON."""

    study: Study
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Known:
    """What a form may speak of: phases in the bundle's order, those that may be missing, and the
    names of the route's own options."""

    phases: Sequence[str]
    optional: Sequence[str]
    options: Sequence[str]
    max_bytes: int


async def read_study(
    request: Request, phases: Sequence[str], settings: Settings, optional: Sequence[str] = ()
) -> Study:
    """The study of a request that has no options of its own. Raises as `read_upload`."""
    return (await read_upload(request, phases, settings, optional=optional)).study


async def read_upload(
    request: Request,
    phases: Sequence[str],
    settings: Settings,
    options: Sequence[str] = (),
    *,
    optional: Sequence[str] = (),
) -> Upload:
    """Read a body of any accepted form.

    phases: ids in the bundle's order; they are the form's file fields. optional: those that may be
    missing (the manifest's optional_phases). options: names that the route understands beside the
    study; form and JSON win over the query. Raises InputError, TooLarge (413) or UnsupportedMedia
    (415), each naming its field.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    refuse_pickle(request.headers.get("content-type", ""))
    known = _Known(phases, optional, options, settings.max_volume_mb << 20)
    found: dict[str, Any] = {
        k: request.query_params[k] for k in options if k in request.query_params
    }
    try:
        if kind == "multipart/form-data":
            study, more = await _multipart(request, known)
        elif kind in NPY_TYPES:
            study, more = await _npy(request, known), {}
        elif kind == "application/json":
            study, more = await _json(request, known)
        else:
            raise UnsupportedMedia(
                "this media type is not accepted",
                field="Content-Type",
                found=kind[:80] or "none",
                expected=ACCEPTED,
            )
    except ClientDisconnect:
        raise InputError(
            "the connection closed before the body ended", code="truncated", field="body"
        ) from None
    return Upload(study, found | more)


async def _decode(function: Any, *arguments: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *arguments, limiter=_DECODERS)


async def _multipart(request: Request, known: _Known) -> tuple[Study, dict[str, Any]]:
    try:
        async with aclosing(request.stream()) as stream:
            form = await MultiPartParser(
                request.headers, stream, max_files=64, max_fields=64, max_part_size=1 << 20
            ).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise InputError(
            "the multipart body cannot be read",
            code="invalid_multipart",
            field="body",
            found=str(getattr(error, "message", error))[:100],
            expected="multipart/form-data with a boundary",
        ) from None
    try:
        return await _decode(_from_form, form, known)
    finally:
        await form.close()


def _from_form(form: FormData, known: _Known) -> tuple[Study, dict[str, Any]]:
    phases, options = known.phases, known.options
    volumes: dict[str, Volume] = {}
    boxes: dict[str, Box] = {}
    more: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in volumes or name in boxes or name in more:
            raise InputError("the field stands twice", field=name)
        if name in phases:
            volumes[name] = _part(name, value, known.max_bytes)
        elif name == "box" or (name.startswith("box.") and name[4:] in phases):
            boxes[name] = Box.parse(_text(name, value), field=name)
        elif name in options:
            more[name] = _text(name, value)
        else:
            names = [*phases, "box", *(f"box.{p}" for p in phases), *options]
            raise InputError(
                "an unknown field",
                code="unknown_field",
                field=name[:60],
                expected=", ".join(names),
            )
    return Study.make(volumes, _one_or_each(boxes), phases, known.optional), more


def _part(name: str, value: UploadFile | str, max_bytes: int) -> Volume:
    if isinstance(value, str):
        raise InputError(
            "a file is expected here", code="not_nifti", field=name, found="a text field",
            expected="a .nii or .nii.gz file part with a file name",
        )  # fmt: skip
    data = value.file.read()
    refuse_pickle(value.content_type or "", data[:2], field=name)
    return _nifti(data, name, max_bytes)


def _nifti(data: bytes, name: str, max_bytes: int) -> Volume:
    from models.cohort.nifti import read_nifti  # not at the start of a service: front.later

    return read_nifti(data, field=name, max_bytes=max_bytes)


def _text(name: str, value: UploadFile | str) -> str:
    if isinstance(value, str):
        return value
    refuse_pickle(value.content_type or "", field=name)
    try:
        return value.file.read(4096).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("text is expected here", field=name, found="binary data") from None


def _one_or_each(boxes: Mapping[str, Box]) -> Box | dict[str, Box]:
    if not boxes:
        raise InputError(
            "a box is missing",
            code="wrong_box",
            field="box",
            expected="'box' on the first phase given, or 'box.<phase>' for each",
        )
    if "box" not in boxes:
        return {name[4:]: box for name, box in boxes.items()}
    if len(boxes) > 1:
        raise InputError(
            "either one box or one for each phase",
            code="wrong_box",
            field="box",
            found=", ".join(sorted(boxes)),
        )
    return boxes["box"]


async def _npy(request: Request, known: _Known) -> Study:
    query = request.query_params
    phases = _stacked(query.get("phases"), known)
    spacing = _spacing(query.get("spacing"))
    boxes = {k: Box.parse(v, field=k) for k, v in query.items() if k.split(".")[0] == "box"}
    unknown = [k for k in boxes if k != "box" and k[4:] not in known.phases]
    if unknown:
        raise InputError("a box for an unknown phase", code="unknown_field", field=unknown[0])
    with SpooledTemporaryFile(max_size=_SPOOL) as body:
        await _spool(request, body)
        array = await _decode(_read_npy, body, known.max_bytes)
    if array.ndim != 4 or array.shape[0] != len(phases):
        raise InputError(
            "the array does not hold the phases",
            code="wrong_shape",
            field="body",
            found=f"shape {tuple(array.shape)}",
            expected=f"[{len(phases)}, X, Y, Z] in the order {', '.join(phases)}",
        )
    affine = np.diag([*spacing, 1.0])

    def build() -> Study:
        volumes = {p: Volume.make(array[i], affine, field=p) for i, p in enumerate(phases)}
        return Study.make(volumes, _one_or_each(boxes), known.phases, known.optional)

    study: Study = await _decode(build)
    return study


def _stacked(text: str | None, known: _Known) -> list[str]:
    """The phases that an array stacks, in its order: all of them where the query is silent."""
    if text is None:
        return list(known.phases)
    names = [name.strip() for name in text.split(",")]
    wrong = [n for i, n in enumerate(names) if n not in known.phases or n in names[:i]]
    if wrong:
        raise InputError(
            "not a list of phases",
            code="unknown_field",
            field="phases",
            found=wrong[0][:60] or "an empty name",
            expected=f"each once, of {', '.join(known.phases)}",
        )
    return names


async def _spool(request: Request, body: IO[bytes]) -> None:
    async for chunk in request.stream():
        body.write(chunk)
    body.seek(0)


def _spacing(text: str | None) -> tuple[float, float, float]:
    try:
        values = [float(v) for v in (text or "").split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        raise InputError(
            "the voxel spacing is missing or wrong",
            code="wrong_spacing",
            field="spacing",
            found=repr(text)[:60],
            expected="three positive numbers in mm, e.g. spacing=1.2,1.2,3",
        )
    return values[0], values[1], values[2]


def _read_npy(body: IO[bytes], max_bytes: int) -> NDArray[Any]:
    """One .npy array; the header is checked before any voxel is read, pickles are refused."""
    start = body.read(6)
    refuse_pickle("", start)
    body.seek(0)
    try:
        version = np.lib.format.read_magic(body)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = reader(body)
    except Exception:  # numpy has no one error for a bad header; its tokenizer has several more
        raise InputError(
            "not a NumPy array",
            code="not_npy",
            field="body",
            found=f"data that start with {start[:4].hex(' ')}" if start else "no data",
            expected="a .npy file of version 1 or 2",
        ) from None
    if dtype.hasobject:
        refuse_pickle("application/x-pickle", field="body")
    if dtype.kind not in "biuf":
        raise InputError(
            "voxels are not real numbers", code="wrong_dtype", field="body", found=str(dtype),
            expected="integers or floats",
        )  # fmt: skip
    count = math.prod(shape)
    if count * max(dtype.itemsize, 4) > max_bytes * 3:
        raise TooLarge("the array is too large", field="body", found=f"shape {shape}")
    raw = body.read(count * dtype.itemsize + 1)
    if len(raw) != count * dtype.itemsize:
        raise InputError(
            "the array is truncated"
            if len(raw) < count * dtype.itemsize
            else "data after the array",
            code="truncated",
            field="body",
            found=f"{len(raw)} bytes of voxels",
            expected=f"{count * dtype.itemsize}",
        )
    flat = np.frombuffer(raw, dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


async def _json(request: Request, known: _Known) -> tuple[Study, dict[str, Any]]:
    with SpooledTemporaryFile(max_size=_SPOOL) as body:
        await _spool(request, body)
        return await _decode(_from_json, body, known)


def _from_json(body: IO[bytes], known: _Known) -> tuple[Study, dict[str, Any]]:
    phases, options = known.phases, known.options
    try:
        raw = json.loads(body.read())
        message = StudyBody.model_validate(raw)
    except ValidationError as error:
        raise invalid(error) from None
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise InputError("the body is not JSON", code="not_json", field="body") from None
    more = message.model_extra or {}
    unknown = [name for name in more if name not in options]
    unknown += [f"phases.{name}" for name in message.phases if name not in phases]
    if unknown:
        raise InputError(
            "an unknown field",
            code="unknown_field",
            field=unknown[0][:60],
            expected=", ".join(["phases", "box", *options, *(f"phases.{p}" for p in phases)]),
        )
    volumes = {n: _from_body(n, value, known.max_bytes) for n, value in message.phases.items()}
    box: Box | dict[str, Box]
    if isinstance(message.box, dict):
        box = {p: Box.make(b, field=f"box.{p}") for p, b in message.box.items()}
    elif isinstance(message.box, str):
        box = Box.parse(message.box)
    else:
        box = Box.make(message.box)
    return Study.make(volumes, box, phases, known.optional), dict(more)


def _from_body(name: str, body: PhaseBody, max_bytes: int) -> Volume:
    where = f"phases.{name}"
    if body.nifti is not None:
        try:
            data = base64.b64decode(body.nifti, validate=True)
        except (binascii.Error, ValueError):
            raise InputError(
                "not base64", code="not_nifti", field=f"{where}.nifti", expected="a file in base64"
            ) from None
        refuse_pickle("", data[:2], field=f"{where}.nifti")
        return _nifti(data, name, max_bytes)
    affine = np.diag([*body.spacing, 1.0]) if body.spacing is not None else _matrix(body, where)
    try:
        voxels = np.asarray(body.voxels)
        if voxels.dtype == object:  # ragged, null, or integers beyond 64 bits
            voxels = voxels.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        raise InputError(
            "not a 3D volume", code="wrong_shape", field=f"{where}.voxels", found="ragged lists",
            expected="nested lists of numbers, [X][Y][Z]",
        ) from None  # fmt: skip
    return Volume.make(voxels, affine, field=name)


def _matrix(body: PhaseBody, where: str) -> NDArray[Any]:
    try:
        return np.asarray(body.affine, dtype=float)
    except ValueError:
        raise InputError(
            "the affine does not map voxels to millimetres", code="wrong_affine",
            field=f"{where}.affine", expected="an invertible 4x4 matrix",
        ) from None  # fmt: skip
