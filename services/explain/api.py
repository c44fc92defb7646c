"""Routes of the explanation jobs, and the reconciler that lives as long as the app.

POST   /v1/explanations                        202, or 200 where the answer is there already
GET    /v1/explanations/{id}                   state, and the document when done
GET    /v1/explanations/{id}/document          the document's exact bytes
GET    /v1/explanations/{id}/report.html
GET    /v1/explanations/{id}/maps[/{name}.nii.gz]
GET    /v1/explanations/{id}/events            server-sent events
DELETE /v1/explanations/{id}                   cancel
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from models.bundle.read import Bundle
from models.errors import NotFound
from models.reasons.explain import maps_from_bytes
from models.reasons.parameters import check_parameters
from models.voi import extract
from services.common.blobs import Blobs
from services.common.broker import Broker
from services.common.events import RedisEvents, last_event_id
from services.common.ledger import Job, Ledger
from services.common.problems import RESPONSES, invalid
from services.common.settings import Settings
from services.common.uploads import read_upload
from services.explain import keys
from services.explain.jobs import BASE, Jobs
from services.explain.map_files import map_nifti
from services.explain.reconciler import Reconciler
from services.explain.sse import stream
from wire.api import ExplanationParameters, JobStatus
from wire.bundle import Manifest

OPTIONS = tuple(ExplanationParameters.model_fields)
_PROBLEM = RESPONSES[422]["content"]
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"description": "No such explanation.", "content": _PROBLEM},
    410: {"description": "The result has expired.", "content": _PROBLEM},
}
_NOT_DONE: dict[int | str, dict[str, Any]] = {
    **_UNKNOWN,
    409: {"description": "The explanation is not done.", "content": _PROBLEM},
}


def open_jobs(settings: Settings) -> Jobs:
    """Jobs over the real ledger, blob store, events and broker of the settings."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return Jobs(
        settings,
        ledger=Ledger(settings.ledger),
        blobs=Blobs(settings.blobs),
        events=RedisEvents(settings.redis),
        broker=Broker(settings),
    )


def build_router(
    serving: Callable[[], Bundle],
    bundle_of: Callable[[str], Bundle],
    settings: Settings,
    jobs: Jobs | None = None,
) -> APIRouter:
    """The router. Include it in the app with its lifespan, which runs the reconciler.

    serving: the bundle that new jobs are accepted for, asked once a request. bundle_of: a bundle by
    its hash, for jobs that were accepted under another.
    """
    jobs = jobs or open_jobs(settings)
    running: list[bool] = []

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        # FastAPI merges a router's lifespan into the app that includes it; an app that also enters
        # it by name must not get two reconcilers.
        if running:
            yield
            return
        running.append(True)
        task = asyncio.create_task(Reconciler(jobs).run(), name="reconciler")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await jobs.events.close()
            running.clear()

    router = APIRouter(prefix=BASE, tags=["explanations"], lifespan=lifespan)

    @router.post(
        "",
        status_code=202,
        response_model=JobStatus,
        responses={200: {"model": JobStatus, "description": "Done before."}, **RESPONSES},
        summary="Ask for an explanation",
    )
    async def submit(request: Request) -> Response:
        """Accepts a study with a lesion's box as POST /v1/predictions does, and `passes`, `seed`,
        `map_steps`, `map_method`, `reader_features` (what a reader or a report says, as JSON or
        'washout=present,central_scar=absent') and `reader_source` as form fields, JSON members or
        query parameters. The same content has the same id and is computed once."""
        bundle = serving()  # the job's for good, whatever is promoted meanwhile
        upload = await read_upload(
            request,
            bundle.manifest.phases,
            settings,
            OPTIONS,
            optional=bundle.manifest.optional_phases,
        )
        try:
            parameters = ExplanationParameters.model_validate(dict(upload.options))
        except ValidationError as error:
            raise invalid(error) from None
        check_parameters(parameters, bundle)

        def accept() -> JobStatus:
            lesion = extract(upload.study, bundle.preprocessing)
            job, _ = jobs.submit(lesion, parameters, bundle.hash)
            return jobs.status(job)

        status = await run_in_threadpool(accept)
        return JSONResponse(
            status.model_dump(mode="json"),
            status_code=200 if status.result is not None else 202,
            headers={"Location": status.links.self},
        )

    @router.get("/{job_id}", response_model=JobStatus, responses=_UNKNOWN, summary="State")
    def status(job_id: str) -> JobStatus:
        return jobs.status(jobs.find(job_id))

    @router.get("/{job_id}/document", responses=_NOT_DONE, summary="The document's exact bytes")
    def document(job_id: str) -> Response:
        return Response(_read(job_id, keys.DOCUMENT), media_type="application/json")

    @router.get(
        "/{job_id}/report.html",
        response_class=HTMLResponse,
        responses=_NOT_DONE,
        summary="The report for a person",
    )
    def report(job_id: str) -> Response:
        # The report is one file that loads nothing: say so to the browser as well.
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return Response(
            jobs.report(jobs.find(job_id)),
            media_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"},
        )

    @router.get("/{job_id}/maps", responses=_NOT_DONE, summary="All maps, NumPy .npz")
    def maps(job_id: str) -> Response:
        return Response(
            jobs.maps(jobs.find(job_id)),
            media_type="application/x-npz",
            headers={"Content-Disposition": f'attachment; filename="{job_id}-maps.npz"'},
        )

    @router.get(
        "/{job_id}/maps/{name:path}.nii.gz",
        responses=_NOT_DONE,
        summary="One map as NIfTI, [x, y, z, phase]",
    )
    def one_map(job_id: str, name: str) -> Response:
        job = jobs.find(job_id)
        arrays = maps_from_bytes(jobs.maps(job))
        if name not in arrays:
            raise NotFound(
                "no such map", field="name", found=name[:80], expected=", ".join(sorted(arrays))
            )
        spec = bundle_of(job.bundle).preprocessing
        data = map_nifti(arrays[name], jobs.lesion(job), spec)
        return Response(data, media_type="application/gzip")

    @router.get(
        "/{job_id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **_UNKNOWN},
        summary="Progress as server-sent events, until the final state",
    )
    async def events(
        job_id: str, seen: str | None = Header(None, alias="Last-Event-ID")
    ) -> StreamingResponse:
        job = await run_in_threadpool(jobs.find, job_id)
        return StreamingResponse(
            stream(jobs, job, last_event_id(seen)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @router.delete(
        "/{job_id}",
        response_model=JobStatus,
        responses={
            **_UNKNOWN,
            409: {"description": "Done or failed already.", "content": _PROBLEM},
        },
        summary="Cancel",
    )
    def cancel(job_id: str) -> JobStatus:
        return jobs.status(jobs.cancel(job_id))

    def _read(job_id: str, name: str) -> bytes:
        job: Job = jobs.find(job_id)
        return jobs.read(job, name)

    return router


def request_of(manifest: Manifest) -> dict[str, Any]:
    """What OpenAPI says of the body of POST /v1/explanations, for this bundle's phases."""
    return {"requestBody": _request_body(manifest.phases, manifest.optional_phases)}


def _request_body(phases: list[str], optional: list[str]) -> dict[str, Any]:
    """What OpenAPI says of the body, as the route reads the stream itself."""
    file = {"type": "string", "format": "binary", "description": "NIfTI, .nii or .nii.gz"}
    numbers = ExplanationParameters.model_json_schema()["properties"]
    fields: dict[str, Any] = {
        **dict.fromkeys(phases, file),
        "box": {"type": "string", "description": "x0,y0,z0,x1,y1,z1; voxels, half open"},
        **numbers,
    }
    required = [*(p for p in phases if p not in optional), "box"]
    form = {"type": "object", "properties": fields, "required": required}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}
