"""A cohort explained by a server: lesions are cut out here, sent by the dozen, fetched when done.

    images --load_lesion--> canonical lesions --POST /v1/explanations:batch--> jobs in the bulk lane
    GET /v1/explanations?id=... until done -> document, maps, report of each

A window of jobs is in flight, so that neither side holds a whole archive; where the server has
enough waiting (429), the rest is sent later. Jobs that were sent before are found again by content.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import httpx
from pydantic import ValidationError

from models.cohort.format import Cohort
from models.cohort.load import load_lesion
from models.errors import LensError, Unavailable
from models.voi import Lesion, Preprocessing
from services.cli.bulk_folder import EXPLANATIONS, MAPS, REPORTS, place
from services.cli.bulk_manifest import Line, Verdict
from services.cli.bulk_worker import Done
from services.cli.explain_remote import checked, failure_of, reachable
from services.common.lesion_stack import MEDIA_TYPE, pack
from wire.api import BatchAccepted, ExplanationParameters, JobList, JobState, JobSummary
from wire.bundle import Manifest
from wire.cohort import CohortLesion
from wire.explanation import Explanation

WINDOW = 64
TOGETHER = 8
LOOK = 1.0  # seconds between two looks at all jobs in flight
LOOK_FEW = 0.25  # the same near the end, when somebody waits for the last ones
PATIENCE = 120.0  # seconds that a server may be away
_SOURCES = {EXPLANATIONS: "document", MAPS: "maps", REPORTS: "report.html"}


class Server:
    """A running service, and the bundle that it serves now: the whole cohort stays with that one.

    Raises InputError where `url` is no address, Unavailable where nobody answers.
    """

    def __init__(
        self,
        url: str,
        parameters: ExplanationParameters,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self.parameters = parameters
        with reachable(url):
            self._client = httpx.Client(
                base_url=url,
                timeout=httpx.Timeout(30.0, read=300.0, write=300.0),
                transport=transport,
            )
            answer = checked(self._client.get("/v1/models"))
        try:
            self.manifest = Manifest.model_validate(answer.json()["models"][0]["manifest"])
            self.spec = Preprocessing(**self.manifest.preprocessing)  # type: ignore[arg-type]
        except (ValueError, KeyError, IndexError, TypeError, ValidationError):
            raise LensError(
                "the server gave an unexpected answer", field="server", expected="a LesionLens "
                "server of this version",
            ) from None  # fmt: skip
        self.bundle = self.manifest.hash

    def explain(
        self,
        cohort: Cohort,
        lesions: Sequence[CohortLesion],
        kinds: Sequence[str],
        keep: Callable[[str, bytes], None],
    ) -> Iterator[Done]:
        """Explain every lesion; yields as they are done. keep(path, bytes) stores a file."""
        try:
            yield from _Run(self, self._client, cohort, lesions, kinds, keep).all()
        finally:
            self._client.close()


class _Run:
    """One pass over a cohort. flight: job id -> the lesions that it answers (often one), and since
    when it is in flight."""

    def __init__(
        self,
        server: Server,
        client: httpx.Client,
        cohort: Cohort,
        lesions: Sequence[CohortLesion],
        kinds: Sequence[str],
        keep: Callable[[str, bytes], None],
    ) -> None:
        self.server = server
        self.client = client
        self.cohort = cohort
        self.waiting = deque(lesions)
        self.kinds = kinds
        self.keep = keep
        self.flight: dict[str, list[tuple[str, float]]] = {}
        self.pack: list[tuple[str, float, Lesion]] = []  # cut out, not yet accepted
        self.batch: str | None = None
        self.not_before = 0.0  # the server asked for a pause until then
        self.next_look = 0.0
        self.heard = time.monotonic()

    def all(self) -> Iterator[Done]:
        with reachable(self.server.url):
            while self.waiting or self.pack or self.flight:
                moved = 0
                for done in (*self._send(), *self._collect()):
                    moved += 1
                    yield done
                if not moved:
                    time.sleep(LOOK_FEW)

    def _send(self) -> Iterator[Done]:
        """Fill the window, one request after the other."""
        while (self.waiting or self.pack) and len(self.flight) < WINDOW:
            if time.monotonic() < self.not_before:
                return
            while self.waiting and len(self.pack) < TOGETHER:
                entry = self.waiting.popleft()
                start = time.monotonic()
                try:
                    self.pack.append((entry.lesion_id, start, self._cut(entry)))
                except LensError as error:
                    yield _failed(entry.lesion_id, error.line)
            if self.pack and not (yield from self._post(list(self.pack))):
                return

    def _cut(self, entry: CohortLesion) -> Lesion:
        manifest = self.server.manifest
        return load_lesion(
            self.cohort, entry, manifest.phases, self.server.spec, manifest.optional_phases
        )

    def _post(self, pack_: list[tuple[str, float, Lesion]]) -> Generator[Done, None, bool]:
        """Send lesions together; where that is refused, one by one. Returns False: try later.

        What was accepted, or refused for good, leaves `self.pack`.
        """
        parameters = self.server.parameters.model_dump(
            include={"passes", "seed", "map_steps", "map_method"}
        )
        query: dict[str, Any] = {"bundle": self.server.bundle, **parameters}
        if self.batch:
            query["batch"] = self.batch
        answer = self._ask(
            lambda: self.client.post(
                "/v1/explanations:batch",
                params=query,
                content=pack([lesion for _, _, lesion in pack_]),
                headers={"Content-Type": MEDIA_TYPE},
            )
        )
        if answer is None:
            return False
        if answer.status_code == 422 and len(pack_) > 1:
            for one in pack_:
                if not (yield from self._post([one])):
                    return False
            return True
        try:
            accepted = BatchAccepted.model_validate(checked(answer).json())
        except LensError as error:
            if answer.status_code != 422:
                raise
            self._drop(pack_)
            yield _failed(pack_[0][0], error.line)
            return True
        self._drop(pack_)
        self.batch = accepted.batch
        for (name, start, _), job in zip(pack_, accepted.jobs, strict=True):
            self.flight.setdefault(job.id, []).append((name, start))
        return True

    def _drop(self, sent: list[tuple[str, float, Lesion]]) -> None:
        names = {name for name, _, _ in sent}
        self.pack = [one for one in self.pack if one[0] not in names]

    def _collect(self) -> Iterator[Done]:
        """What has come to an end since the last look."""
        now = time.monotonic()
        if not self.flight or now < self.next_look:
            return
        self.next_look = now + (LOOK if len(self.flight) > TOGETHER else LOOK_FEW)
        ids = list(self.flight)
        answer = self._ask(lambda: self.client.get("/v1/explanations", params={"id": ids}))
        if answer is None:
            return
        known = {job.id: job for job in JobList.model_validate(checked(answer).json()).jobs}
        for job_id in ids:
            job = known.get(job_id)
            if job is None or job.state is JobState.CANCELLED:
                why = "the server does not know the job any more" if job is None else "cancelled"
                yield from (_failed(name, why) for name, _ in self.flight.pop(job_id))
            elif job.state is JobState.FAILED:
                why = failure_of(job.error, job.state.value).line
                yield from (_failed(name, why) for name, _ in self.flight.pop(job_id))
            elif job.state is JobState.DONE:
                yield from self._fetch(job)

    def _fetch(self, job: JobSummary) -> Iterator[Done]:
        found: dict[str, bytes] = {}
        for kind in self.kinds:
            path = f"/v1/explanations/{job.id}/{_SOURCES[kind]}"
            answer = self._ask(lambda path=path: self.client.get(path))  # type: ignore[misc]
            if answer is None:
                return  # still in flight, so fetched at the next look
            found[kind] = checked(answer).content
        verdict = Verdict.of(Explanation.model_validate_json(found[EXPLANATIONS]))
        for name, start in self.flight.pop(job.id):
            for kind in self.kinds:
                self.keep(place(kind, name), found[kind])
            line = Line(
                id=name,
                state="done",
                job=job.id,
                seconds=round(time.monotonic() - start, 3),
                document=place(EXPLANATIONS, name),
                verdict=verdict,
            )
            yield Done(line=line)

    def _ask(self, call: Callable[[], httpx.Response]) -> httpx.Response | None:
        """The answer; None where the server is busy or away and may be asked again later."""
        try:
            answer = call()
        except httpx.TransportError:
            if time.monotonic() - self.heard > PATIENCE:
                raise
            self.not_before = time.monotonic() + 1.0
            return None
        if answer.status_code == 429:  # it is there, and full
            self.heard = time.monotonic()
        elif answer.status_code not in (502, 503, 504):
            self.heard = time.monotonic()
            return answer
        if time.monotonic() - self.heard > PATIENCE:
            raise Unavailable(
                f"the server was busy or away for {PATIENCE:.0f} s; start again later"
            )
        self.not_before = time.monotonic() + _pause(answer)
        return None


def _pause(answer: httpx.Response) -> float:
    """Retry-After in seconds, within reason."""
    try:
        return min(max(float(answer.headers.get("Retry-After", 1)), 0.5), 10.0)
    except ValueError:
        return 1.0


def _failed(name: str, why: str) -> Done:
    return Done(line=Line.failure(name, why))
