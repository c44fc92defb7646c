"""Routes for many explanations at once.

POST   /v1/explanations:batch        up to 32 canonical lesions, safetensors -> 202, their jobs
GET    /v1/explanations?id=&id=      states of jobs, by id
GET    /v1/explanations?batch=       states of a batch's jobs
GET    /v1/batches/{batch}           how far a batch is
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from models.bundle.read import Bundle
from models.errors import BundleError, InputError, NotFound, Unavailable, UnsupportedMedia
from models.reasons.parameters import check_parameters
from services.common.lesion_stack import MEDIA_TYPE, MOST, unpack
from services.common.limits import refuse_pickle
from services.common.problems import RESPONSES, invalid
from services.explain.bulk import Bulk, summary
from services.explain.jobs import Jobs
from wire.api import BatchAccepted, BatchStatus, ExplanationParameters, JobList

# Bodies are read into memory: two of about 100 MB at once are enough to keep a worker busy.
AT_ONCE = 2
_MOST_IDS = 500
_PAGE = 1000
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_FULL: dict[int | str, dict[str, Any]] = {
    429: {
        "description": "As many bulk jobs wait as may; `Retry-After` says when to ask again.",
        "content": RESPONSES[422]["content"],
    }
}


def build_router(
    serving: Callable[[], Bundle], bundle_of: Callable[[str], Bundle], jobs: Jobs
) -> APIRouter:
    """serving, bundle_of: as services.explain.api.build_router takes them."""
    bulk = Bulk(jobs)
    router = APIRouter(prefix="/v1", tags=["explanations"])
    reading = 0

    @contextmanager
    def place() -> Iterator[None]:
        nonlocal reading
        if reading >= AT_ONCE:
            raise Unavailable("other batches are arriving", code="bulk_busy", retry_after=1)
        reading += 1
        try:
            yield
        finally:
            reading -= 1

    @router.post(
        "/explanations:batch",
        status_code=202,
        response_model=BatchAccepted,
        responses={**RESPONSES, **_FULL},
        openapi_extra=_BODY,
        summary="Ask for many explanations",
    )
    async def submit(
        request: Request,
        batch: Annotated[str | None, Query(pattern=_NAME, description="Joins a batch.")] = None,
        bundle: Annotated[str | None, Query(description="Hash; default: what is served.")] = None,
        passes: Annotated[int, Query()] = _DEFAULTS.passes,
        seed: Annotated[int, Query()] = _DEFAULTS.seed,
        map_steps: Annotated[int, Query()] = _DEFAULTS.map_steps,
        map_method: Annotated[str, Query()] = _DEFAULTS.map_method,
    ) -> JSONResponse:
        """Accepts canonical lesions that the client has cut out itself, as a safetensors file:
        `voxels` F32 [N, phases, n, n, n], `mm_per_voxel` F64 [N], `size_mm` F64 [N, 3], `slices`
        I64 [N], `missing` U8 [N, phases]. The jobs wait behind every single request; their ids,
        documents and maps are those of single requests. The body is accepted whole or not at
        all."""
        kind = request.headers.get("content-type", "")
        refuse_pickle(kind)
        if kind.split(";")[0].strip().lower() != MEDIA_TYPE:
            raise UnsupportedMedia(
                "this media type is not accepted", field="Content-Type", found=kind[:80] or "none",
                expected=MEDIA_TYPE,
            )  # fmt: skip
        try:
            parameters = ExplanationParameters(
                passes=passes, seed=seed, map_steps=map_steps, map_method=map_method
            )
        except ValidationError as error:
            raise invalid(error) from None
        with place():
            chosen = serving() if bundle is None else await run_in_threadpool(_known, bundle)
            check_parameters(parameters, chosen)
            try:
                body = await request.body()
            except ClientDisconnect:
                raise InputError(
                    "the connection closed before the body ended", code="truncated", field="body"
                ) from None
            name = batch or bulk.new_batch()

            def accept() -> BatchAccepted:
                manifest = chosen.manifest
                lesions = unpack(
                    body, manifest.phases, manifest.optional_phases, chosen.preprocessing
                )
                accepted = bulk.submit(lesions, parameters, chosen.hash, name)
                return BatchAccepted(
                    batch=name, bundle=chosen.hash, jobs=[summary(job) for job in accepted]
                )

            answer = await run_in_threadpool(accept)
        return JSONResponse(
            answer.model_dump(mode="json", exclude_none=True),
            status_code=202,
            headers={"Location": f"/v1/batches/{name}"},
        )

    def _known(bundle: str) -> Bundle:
        try:
            return bundle_of(bundle)
        except (BundleError, KeyError):
            raise NotFound(
                "no such bundle here", code="unknown_bundle", field="bundle", found=bundle[:60]
            ) from None

    @router.get(
        "/explanations",
        response_model=JobList,
        response_model_exclude_none=True,
        summary="States of many jobs",
    )
    def states(
        id: Annotated[
            list[str] | None, Query(max_length=_MOST_IDS, description="Repeat it for each job.")
        ] = None,
        batch: Annotated[str | None, Query(description="All jobs of a batch, in pages.")] = None,
        after: Annotated[str, Query(description="`next` of the page before.")] = "",
    ) -> JobList:
        """The jobs with these ids, in their order, those that are not known left out; or the jobs
        of a batch."""
        if (id is None) == (batch is None):
            raise InputError("which jobs?", field="id", expected="either `id` or `batch`")
        if batch is not None:
            bulk.status(batch)
            page = bulk.batches.jobs(batch, after, _PAGE)
            more = page[-1].id if len(page) == _PAGE else None
            return JobList(jobs=[summary(job) for job in page], next=more)
        found = jobs.ledger.get_many(id or [])
        return JobList(jobs=[summary(found[i]) for i in id or [] if i in found])

    @router.get(
        "/batches/{batch}",
        response_model=BatchStatus,
        responses={404: {"description": "No such batch.", "content": RESPONSES[422]["content"]}},
        summary="How far a batch is",
    )
    def status(batch: str) -> BatchStatus:
        return bulk.status(batch)

    return router


_DEFAULTS = ExplanationParameters()
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": f"At most {MOST} canonical lesions.",
                }
            }
        },
    }
}
