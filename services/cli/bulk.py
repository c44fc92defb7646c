"""`lesionlens explain --cohort DIR` without a lesion: all of them, here or on a server, resumable.

cohort -> those that the manifest does not have -> explain_here | explain_there
       -> a document each, a line each; in the end the table
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.cohort.format import FILE_NAME, Cohort, read_cohort
from models.errors import InputError
from models.reasons.document import code_version
from services.cli.bulk_folder import EXPLANATIONS, MAPS, REPORTS, prepare, put, write_summary
from services.cli.bulk_here import cores, explain_here
from services.cli.bulk_manifest import Line, Manifest
from services.cli.bulk_worker import Done, Order
from wire.api import ExplanationParameters
from wire.cohort import CohortLesion


@dataclass(frozen=True)
class Wish:
    """What is asked for. split, class_id, limit: which lesions; bundle, server: where."""

    cohort: Path
    out: Path
    parameters: ExplanationParameters
    split: str | None = None
    class_id: str | None = None
    limit: int | None = None
    bundle: str | None = None
    server: str | None = None
    processes: int | None = None
    maps: bool = False
    reports: bool = False

    @property
    def kinds(self) -> list[str]:
        return [EXPLANATIONS, *([MAPS] if self.maps else []), *([REPORTS] if self.reports else [])]


@dataclass
class Tally:
    """How it went. before: done already; reasons: a line a failed lesion; start: CPU seconds until
    the processes were ready; read, explain, cpu: CPU seconds as `Done` has them."""

    total: int
    before: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    start: float = 0.0
    read: float = 0.0
    explain: float = 0.0
    cpu: float = 0.0
    reasons: list[str] = field(default_factory=list)
    summary: Path | None = None


def explain_cohort(wish: Wish, tell: Callable[[int, int], None] | None = None) -> Tally:
    """Explain what is not done yet. tell(done, total) counts what there was to do.

    Raises LensError where nothing can begin: the cohort, the bundle, a folder of another wish.
    """
    start = time.monotonic()
    cohort = read_cohort(wish.cohort)
    lesions = chosen(cohort, wish)
    bundle, explain = _there(wish, cohort) if wish.server else _here(wish, cohort)
    with Manifest(wish.out, _head(wish, cohort, bundle)) as manifest:
        _prepared(wish)
        todo = [one for one in lesions if not _is_done(wish.out, manifest.lines.get(one.lesion_id))]
        tally = Tally(len(lesions), before=len(lesions) - len(todo))
        if tell:
            tell(0, len(todo))
        try:

            def started(cpu: float) -> None:
                tally.start += cpu

            for number, done in enumerate(explain(todo, started), 1):
                manifest.add(done.line)
                tally.done += done.line.done
                if not done.line.done:
                    tally.failed += 1
                    tally.reasons.append(f"lesion {done.line.id}: {done.line.error}")
                tally.read += done.read
                tally.explain += done.explain
                tally.cpu += done.cpu
                if tell:
                    tell(number, len(todo))
        finally:
            tally.summary = write_summary(wish.out, lesions, manifest.lines)
    tally.seconds = time.monotonic() - start
    return tally


def chosen(cohort: Cohort, wish: Wish) -> list[CohortLesion]:
    """The lesions of the wish, in the cohort's order. Raises InputError where there are none."""
    lesions = cohort.lesions(wish.split)
    if wish.class_id is not None:
        known = sorted({one.class_id for one in lesions})
        lesions = [one for one in lesions if one.class_id == wish.class_id]
        if not lesions:
            raise InputError(
                "no lesion is labelled so", field="class", found=wish.class_id[:60],
                expected=", ".join(known) or None,
            )  # fmt: skip
    lesions = lesions[: wish.limit]
    if not lesions:
        raise InputError("no lesion is chosen", field="split", found=wish.split or "none")
    return lesions


def _head(wish: Wish, cohort: Cohort, bundle: str) -> dict[str, Any]:
    """All that a document depends on, and what is kept of it. Images are named, not hashed: that
    would read a whole archive."""
    listed = hashlib.sha256((cohort.root / FILE_NAME).read_bytes()).hexdigest()
    return {
        "cohort": {"name": cohort.file.name, "version": cohort.file.version, "sha256": listed},
        "bundle": bundle,
        "parameters": wish.parameters.model_dump(mode="json"),
        "keeps": wish.kinds,
        "code": code_version(),
    }


def _prepared(wish: Wish) -> None:
    try:
        prepare(wish.out, wish.kinds)
    except OSError as error:
        raise InputError(
            "cannot be written", code="unwritable", field="out", found=error.strerror or "an error"
        ) from None


def _is_done(out: Path, line: Line | None) -> bool:
    return line is not None and line.done and (out / (line.document or "?")).is_file()


Explain = Callable[[Sequence[CohortLesion], Callable[[float], None]], Iterator[Done]]


def _here(wish: Wish, cohort: Cohort) -> tuple[str, Explain]:
    from models.bundle.read import read_bundle
    from models.reasons.parameters import check_parameters
    from services.common.configured import read_settings
    from services.common.store import resolve

    bundle = read_bundle(resolve(wish.bundle, read_settings()))
    check_parameters(wish.parameters, bundle)
    order = Order(
        bundle=bundle.path.resolve(),
        root=cohort.root.resolve(),
        cohort=cohort.file.model_copy(
            update={"training": [], "validation": [], "test": [], "outside": []}
        ),
        out=wish.out.resolve(),
        kinds=wish.kinds,
        parameters=wish.parameters,
    )
    return bundle.hash, lambda todo, started: explain_here(
        todo, order, wish.processes or cores(), started
    )


def _there(wish: Wish, cohort: Cohort) -> tuple[str, Explain]:
    from services.cli.bulk_remote import Server

    server = Server(wish.server or "", wish.parameters)

    def keep(relative: str, data: bytes) -> None:
        put(wish.out, relative, data)

    return server.bundle, lambda todo, _: server.explain(cohort, todo, wish.kinds, keep)
