"""One process of `lesionlens explain --cohort`: python -m services.cli.bulk_worker

    stdin    one JSON line that says how (Order), then one a lesion (cohort.json's entry)
    stdout   {"ready": <CPU seconds of the start>}, then one JSON line a lesion (Done)

It holds a model of its own with one thread. It ends when stdin does, so also when the process that
started it was killed.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.cohort.format import Cohort
from models.cohort.load import load_lesion
from models.errors import LensError
from models.reasons.explain import document_bytes, explain, explanation_id, maps_bytes
from services.cli.bulk_folder import EXPLANATIONS, MAPS, REPORTS, place, put
from services.cli.bulk_manifest import Line, Verdict
from wire.api import ExplanationParameters
from wire.cohort import CohortFile, CohortLesion

_log = logging.getLogger(__name__)


class Order(BaseModel):
    """What is the same for all lesions. kinds: of explanations, maps, reports."""

    bundle: Path
    root: Path
    cohort: CohortFile
    out: Path
    kinds: list[str]
    parameters: ExplanationParameters


class Done(BaseModel):
    """A lesion's line, and CPU seconds: of reading and resampling, of explain(), of all."""

    line: Line
    read: float = 0.0
    explain: float = 0.0
    cpu: float = 0.0


class Worker:
    """Explains one lesion after the other, and writes its files."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.bundle = read_bundle(order.bundle)
        self.model = load_model(self.bundle, 1)
        self.cohort = Cohort(order.root, order.cohort)

    def work(self, lesion: CohortLesion) -> Done:
        """A fault of the lesion becomes a failed line; it stops nobody else."""
        start, began = time.monotonic(), time.process_time()
        try:
            done = self._explain(lesion)
        except LensError as error:
            done = Done(line=Line.failure(lesion.lesion_id, error.line))
        except OSError as error:
            reason = f"a file cannot be read or written ({error.strerror or 'an error'})"
            done = Done(line=Line.failure(lesion.lesion_id, reason))
        except Exception as error:
            _log.exception("lesion %s", lesion.lesion_id)
            reason = f"something went wrong inside ({type(error).__name__})"
            done = Done(line=Line.failure(lesion.lesion_id, reason))
        done.line.seconds = round(time.monotonic() - start, 3)
        done.cpu = time.process_time() - began
        return done

    def _explain(self, entry: CohortLesion) -> Done:
        order, manifest = self.order, self.bundle.manifest
        began = time.process_time()
        lesion = load_lesion(
            self.cohort, entry, manifest.phases, self.bundle.preprocessing,
            manifest.optional_phases,
        )  # fmt: skip
        read = time.process_time()
        result = explain(lesion, self.bundle, self.model, order.parameters)
        explained = time.process_time()
        if MAPS in order.kinds:
            put(order.out, place(MAPS, entry.lesion_id), maps_bytes(result.maps))
        if REPORTS in order.kinds:
            from models.report.page import render

            page = render(result.document, lesion, result.maps).encode("utf-8")
            put(order.out, place(REPORTS, entry.lesion_id), page)
        document = place(EXPLANATIONS, entry.lesion_id)
        put(order.out, document, document_bytes(result.document))
        line = Line(
            id=entry.lesion_id,
            state="done",
            job=explanation_id(result.document.lesion.id, manifest.hash, order.parameters),
            document=document,
            verdict=Verdict.of(result.document),
        )
        return Done(line=line, read=read - began, explain=explained - read)


def serve(lines: Iterable[str], out: TextIO) -> None:
    """Until there are no more lines."""
    source = iter(lines)
    first = next(source, None)
    if first is None:
        return
    worker = Worker(Order.model_validate_json(first))
    print(json.dumps({"ready": time.process_time()}), file=out, flush=True)
    for raw in source:
        done = worker.work(CohortLesion.model_validate_json(raw))
        print(done.model_dump_json(by_alias=True), file=out, flush=True)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes elsewhere
    try:
        serve(sys.stdin, answers)
    except LensError as error:
        sys.exit(f"error: {error.line}")
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more


if __name__ == "__main__":
    main()
