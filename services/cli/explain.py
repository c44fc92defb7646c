"""`lesionlens explain`: one lesion or a cohort, here or on a server; the documents are the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from models.errors import BundleError, InputError
from wire.api import ExplanationParameters
from wire.explanation import Explanation

if TYPE_CHECKING:
    from services.cli.explain_inputs import Source
    from services.cli.explain_remote import Fetched
    from services.common.settings import Settings

_PATH = click.Path(path_type=Path)
_OPTIONS = {"reader_features": "reader", "map_method": "map-method"}
_LIMITS: dict[str, Any] = ExplanationParameters.model_json_schema()["properties"]


@click.command()
@click.option("--arterial", type=_PATH, help="NIfTI file, DICOM file or DICOM folder.")
@click.option("--portal-venous", type=_PATH, help="The same for the portal venous phase.")
@click.option("--delayed", type=_PATH, help="The same for the delayed phase.")
@click.option("--phase", "more", multiple=True, metavar="ID=PATH", help="Any other phase.")
@click.option("--dicom", type=_PATH, help="Folder with all phases; they are told apart.")
@click.option("--cohort", type=_PATH, help="Folder of a cohort: all of it, or one --lesion.")
@click.option("--lesion", metavar="ID", help="A lesion of the cohort; it brings its box.")
@click.option("--split", metavar="NAME", help="All: only training, validation, test or outside.")
@click.option("--class", "class_id", metavar="ID", help="All: only lesions labelled so.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="All: only the first N.")
@click.option("--processes", type=click.IntRange(1), metavar="N", help="All: default a core each.")
@click.option("--with-maps", is_flag=True, help="All: keep the maps of each lesion.")
@click.option("--with-reports", is_flag=True, help="All: keep a report of each lesion.")
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="x0,y0,z0,x1,y1,z1",
    help="Voxel indices, half open, on the first phase; or PHASE=... once for each phase.",
)
@click.option("--bundle", metavar="PATH|TAG", help="Folder, or a name in the model store.")
@click.option("--server", metavar="URL", help="Let a LesionLens server compute it.")
@click.option("--out", type=_PATH, help="Folder for explanation.json, report.html, maps.npz.")
@click.option("--json", "as_json", is_flag=True, help="Print the document, nothing else.")
@click.option("--passes", type=int, default=25, show_default=True, help="Stochastic passes.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--map-steps", type=int, default=8, show_default=True, help="Steps of the maps.")
@click.option("--map-method", default="default", show_default=True, help="How maps are made.")
@click.option(
    "--reader",
    multiple=True,
    metavar="FEATURE=present|absent,...",
    help="What a reader sees; held against the network's class.",
)
@click.option(
    "--reader-source",
    type=click.Choice(["reader", "report"]),
    default="reader",
    show_default=True,
    help="Whether --reader is a person's ticks or was taken from a report.",
)
def explain(
    arterial: Path | None,
    portal_venous: Path | None,
    delayed: Path | None,
    more: tuple[str, ...],
    dicom: Path | None,
    cohort: Path | None,
    lesion: str | None,
    split: str | None,
    class_id: str | None,
    limit: int | None,
    processes: int | None,
    with_maps: bool,
    with_reports: bool,
    boxes: tuple[str, ...],
    bundle: str | None,
    server: str | None,
    out: Path | None,
    as_json: bool,
    passes: int,
    seed: int,
    map_steps: int,
    map_method: str,
    reader: tuple[str, ...],
    reader_source: str,
) -> int | None:
    """Classify one lesion and show the reasons: features, relevance, maps, whether to look again.
    Or a whole cohort: a document each, and a table.

    \b
    lesionlens explain --arterial a.nii.gz --portal-venous v.nii.gz --delayed d.nii.gz \\
                       --box "60,72,14,92,104,30" --out explained
    lesionlens explain --cohort DIR --lesion ID
    lesionlens explain --dicom FOLDER --box "60,72,14,92,104,30" --server http://host:3000
    lesionlens explain --cohort DIR --lesion ID --reader washout=present,central_scar=absent
    lesionlens explain --cohort DIR --split test --out explained [--server http://host:3000]

    A phase that was not acquired is left out, where the network was trained with phase dropout.

    A whole cohort may be stopped at any moment, and goes on when it is asked for again in the same
    way. Lesions that cannot be explained are listed and stop nobody else; then the exit code is 1
    (0: all done; 2: nothing was begun).
    """
    from services.cli.explain_inputs import Source

    parameters = _parameters(
        passes=passes,
        seed=seed,
        map_steps=map_steps,
        map_method=map_method,
        reader_features=",".join(reader),
        reader_source=reader_source,
    )
    if server and bundle:
        raise InputError("the server has its own bundle", code="wrong_source", field="bundle")
    files = {"arterial": arterial, "portal_venous": portal_venous, "delayed": delayed}
    beside = {
        "split": split, "class": class_id, "limit": limit, "processes": processes,
        "with-maps": with_maps, "with-reports": with_reports,
    }  # fmt: skip
    if cohort is not None and lesion is None:
        from services.cli.bulk import Wish
        from services.cli.bulk_show import explain_shown

        one = {
            "dicom": dicom, "phase": more, "box": boxes, "reader": reader, "json": as_json,
            **{name.replace("_", "-"): path for name, path in files.items()},
        }  # fmt: skip
        _only("one lesion; name it with --lesion", one)
        if server:
            _only("work on this machine", {"processes": processes})
        if out is None:
            raise InputError(
                "one lesion, or where to with all of them?", code="wrong_source", field="out",
                expected="--lesion ID, or --out FOLDER",
            )  # fmt: skip
        wish = Wish(
            cohort, out, parameters, split=split, class_id=class_id, limit=limit, bundle=bundle,
            server=server, processes=processes, maps=with_maps, reports=with_reports,
        )  # fmt: skip
        return explain_shown(wish)
    _only("a whole cohort: --cohort without --lesion", beside)
    source = Source(
        files={p: f for p, f in files.items() if f is not None} | _more(more),
        dicom=dicom,
        cohort=cohort,
        lesion=lesion,
        boxes=boxes,
    )
    source.check()
    from services.common.configured import read_settings

    settings = read_settings()
    with _progress() as tell:
        if server:
            from services.cli.explain_remote import explain_remote

            tell("reading the images", 0.0)
            phases = source.phases()
            # Which phases may be missing is the server's to say.
            study = source.study(phases, settings.max_volume_mb << 20, optional=phases)
            fetched = explain_remote(server, study, parameters, tell)
        else:
            fetched = _here(source, bundle, settings, parameters, tell)
    if out is not None:
        _write(out, fetched)
    if as_json:
        sys.stdout.buffer.write(fetched.document)
        sys.stdout.buffer.flush()
        return None
    from services.cli.explain_summary import show

    show(Explanation.model_validate_json(fetched.document), out)
    return None


def _here(
    source: Source,
    bundle_ref: str | None,
    settings: Settings,
    parameters: ExplanationParameters,
    tell: Callable[[str, float], None],
) -> Fetched:
    """In this process: the bundle on onnxruntime."""
    from models.bundle.read import read_bundle
    from models.bundle.runtime import load_model
    from models.reasons.explain import document_bytes, maps_bytes
    from models.reasons.explain import explain as explain_lesion
    from models.report.page import render
    from models.voi import extract
    from services.cli.explain_remote import Fetched
    from services.common.store import resolve

    tell("reading the bundle", 0.0)
    max_bytes = settings.max_volume_mb << 20
    try:
        bundle = read_bundle(resolve(bundle_ref, settings))
    except BundleError:
        phases = source.phases()
        source.study(phases, max_bytes, optional=phases)  # a fault of the input is worth more
        raise
    tell("reading the images", 0.0)
    manifest = bundle.manifest
    study = source.study(manifest.phases, max_bytes, manifest.optional_phases)
    lesion = extract(study, bundle.preprocessing)
    tell("loading the network", 0.0)
    model = load_model(bundle, settings.threads)
    result = explain_lesion(lesion, bundle, model, parameters, tell)
    tell("writing the report", 0.99)
    return Fetched(
        document=document_bytes(result.document),
        report=render(result.document, lesion, result.maps).encode("utf-8"),
        maps=maps_bytes(result.maps),
    )


def _parameters(**values: Any) -> ExplanationParameters:
    """One line for a value out of range."""
    for name, value in values.items():
        limits = _LIMITS[name]
        if "minimum" not in limits:
            continue
        low = limits["minimum"]
        high = limits.get("maximum", limits.get("exclusiveMaximum", 2**31) - 1)
        if not low <= value <= high:
            raise InputError(
                "out of range",
                field=name.replace("_", "-"),
                found=str(value),
                expected=f"{low} to {high}",
            )
    try:
        return ExplanationParameters(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = _OPTIONS.get(str(first["loc"][0]), str(first["loc"][0]))
        expected = {
            "reader": "FEATURE=present or FEATURE=absent, separated by commas",
            "map-method": "the name of a method",
        }.get(field)
        raise InputError(
            "cannot be read", field=field, found=str(first["input"])[:60], expected=expected
        ) from None


def _only(what: str, given: dict[str, Any]) -> None:
    """Raises InputError for an option that is not for what is asked."""
    for name, value in given.items():
        if value:
            raise InputError(f"for {what}", code="wrong_source", field=name)


def _more(texts: tuple[str, ...]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in texts]
    for name, separator, path in pairs:
        if not (name and separator and path):
            raise InputError("not ID=PATH", code="wrong_source", field="phase", found=name[:60])
    return {name: Path(path) for name, _, path in pairs}


def _write(folder: Path, fetched: Fetched) -> None:
    files = {
        "explanation.json": fetched.document,
        "report.html": fetched.report,
        "maps.npz": fetched.maps,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise InputError(
            "cannot be written", code="unwritable", field="out", found=error.strerror or "an error"
        ) from None


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr where a person looks; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda stage, fraction: bar.update(task, description=stage, completed=fraction)
