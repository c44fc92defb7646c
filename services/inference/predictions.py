"""POST /v1/predictions, and the features of the bundle that is served: GET /v1/features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request

from models.bundle.read import Bundle
from models.bundle.variant import PRECISIONS
from models.errors import InputError
from models.reasons.predict import predict
from models.voi import extract
from models.volume import Study
from services.common.problems import RESPONSES
from services.common.settings import Settings
from services.common.uploads import read_upload
from services.inference.fleet import Fleet
from services.inference.host import ModelHost
from services.inference.presence import unless_gone
from wire.api import PredictionResponse
from wire.bundle import Manifest

_FILE = {"type": "string", "format": "binary"}
_BOX = {"type": "string", "example": "40,52,10,71,80,24"}


def _study_request(
    phases: Sequence[str], optional: Sequence[str], extra: dict[str, Any]
) -> dict[str, Any]:
    """OpenAPI of a study in any accepted form; extra: schemas of the route's own form fields."""
    form = {
        **{p: _FILE | {"description": _file_text(p in optional)} for p in phases},
        "box": _BOX
        | {
            "description": "x0,y0,z0,x1,y1,z1: voxel indices of the first phase given, half open. "
            "It is carried to the other phases in millimetres; or give box.<phase> for each."
        },
        **extra,
    }
    return {
        "requestBody": {
            "required": True,
            "description": "The phases of one lesion and a box around it. Field names are the "
            "phase ids of the bundle (`GET /v1/models`).",
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": form,
                        "required": [p for p in phases if p not in optional],
                    }
                },
                "application/x-npy": {
                    "schema": _FILE | {"description": "One .npy array [phases, X, Y, Z]."}
                },
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/StudyBody"},
                    "example": {
                        "phases": {p: {"nifti": "H4sIAAAA..."} for p in phases},
                        "box": [[40, 52, 10], [71, 80, 24]],
                    },
                },
            },
        },
        "parameters": [
            {
                "name": "spacing",
                "in": "query",
                "description": "application/x-npy only: voxel edges in mm, x,y,z.",
                "schema": {"type": "string"},
                "example": "1.2,1.2,3",
            },
            {
                "name": "box",
                "in": "query",
                "description": "application/x-npy only: as the form's field of that name.",
                "schema": {"type": "string"},
            },
            {
                "name": "phases",
                "in": "query",
                "description": "application/x-npy only: the phases that the array stacks, in its "
                "order; all by default.",
                "schema": {"type": "string"},
                "example": ",".join(phases),
            },
        ],
    }


def _file_text(optional: bool) -> str:
    text = "One NIfTI file, .nii or .nii.gz"
    return f"{text}; may be left out where the phase was not acquired" if optional else text


def build_router(fleet: Fleet, settings: Settings) -> APIRouter:
    """Routes under /v1 that the bundle and one deterministic pass can answer."""
    router = APIRouter(prefix="/v1", tags=["predictions"])

    @router.post(
        "/predictions",
        summary="Classify one lesion",
        description="One deterministic pass: calibrated class probabilities, an "
        "out-of-distribution score and cautions. Pooled activations on request. Research software, "
        "not a medical device.",
        response_model=PredictionResponse,
        responses=RESPONSES,
    )
    async def predictions(request: Request) -> PredictionResponse:
        host = fleet.current  # this request's to the end, whatever is promoted meanwhile
        with fleet.admit():
            manifest = host.bundle.manifest
            upload = await read_upload(
                request,
                manifest.phases,
                settings,
                options=("activations", "precision"),
                optional=manifest.optional_phases,
            )
            taps = _taps(upload.options.get("activations"), list(manifest.taps))
            precision = _precision(upload.options.get("precision"), host)
            work = fleet.run(_predict, host, upload.study, taps, precision)
            return await unless_gone(request.receive, work)

    @router.get("/features", summary="The vocabulary, and how well each feature is detected")
    async def features() -> dict[str, Any]:
        bundle = fleet.current.bundle
        return {"bundle": bundle.hash, "features": _features(bundle)}

    return router


def request_of(manifest: Manifest) -> dict[str, Any]:
    """What OpenAPI says of the body and query of POST /v1/predictions, for this bundle's phases."""
    return _with_activations(manifest.phases, manifest.optional_phases)


def _with_activations(phases: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    text = "Taps whose pooled activations are wanted, e.g. `fc,conv4`."
    precision = "What computes the answer: `fp32`, or an accepted variant of the bundle, e.g. "
    precision += "`openvino-int8`; by default what the service is set to."
    fields = {
        "activations": {"type": "string", "description": text},
        "precision": {"type": "string", "description": precision},
    }
    extra = _study_request(phases, optional, fields)
    extra["parameters"].append(
        {
            "name": "activations",
            "in": "query",
            "description": text,
            "schema": {"type": "string"},
            "example": "fc",
        }
    )
    extra["parameters"].append(
        {
            "name": "precision",
            "in": "query",
            "description": precision,
            "schema": {"type": "string"},
            "example": "fp32",
        }
    )
    return extra


def _taps(value: Any, known: list[str]) -> list[str]:
    names = value if isinstance(value, list) else str(value or "").split(",")
    taps = [str(name).strip() for name in names if str(name).strip()]
    unknown = [name for name in taps if name not in known]
    if unknown:
        raise InputError(
            "no such tap",
            code="unknown_tap",
            field="activations",
            found=unknown[0][:60],
            expected=", ".join(known),
        )
    return list(dict.fromkeys(taps))


def _precision(value: Any, host: ModelHost) -> str:
    """What the request asks for, else what the service answers with."""
    if value is None or value == "":
        return host.precision
    if not isinstance(value, str):
        raise InputError(
            "not a precision",
            code="variant_unknown",
            field="precision",
            found=type(value).__name__,
            expected=", ".join(PRECISIONS),
        )
    return value


def _predict(host: ModelHost, study: Study, taps: list[str], precision: str) -> PredictionResponse:
    model = host.at(precision)  # a precision that is not served is said before the study is read
    lesion = extract(study, host.bundle.preprocessing)
    answer = predict(lesion, host.bundle, model, taps)
    return answer.model_copy(update={"precision": precision})


def _features(bundle: Bundle) -> list[dict[str, Any]]:
    """In the vocabulary's order, which is the probes' order."""
    probes = bundle.probes
    return [
        {
            **feature.model_dump(mode="json"),
            "probe": probes.kinds[i],
            "threshold": round(float(probes.thresholds[i]), 4),
            "quality": probes.quality[i].model_dump(mode="json"),
        }
        for i, feature in enumerate(bundle.vocabulary.features)
    ]
