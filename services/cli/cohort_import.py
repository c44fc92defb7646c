"""lesionlens cohort import: one verb an importer, made of its Options."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click
from pydantic import ValidationError

from models.errors import InputError
from services.cli.bar import bar

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from models.cohort.importers.base import Importer

_PATH = click.Path(path_type=Path)


class _Importers(click.Group):
    """Loads an importer only when it is used or asked for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from models.cohort.importers import IMPORTERS

        return list(IMPORTERS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from models.cohort.importers import IMPORTERS, load_importer

        return _command(cmd_name, load_importer(cmd_name)) if cmd_name in IMPORTERS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from models.cohort.importers import IMPORTERS

        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in IMPORTERS.items()])


@click.group("import", cls=_Importers)
def cohort_import() -> None:
    """Bring a set of images into the cohort format.

    The phases of a lesion are laid on one grid, cut out around the lesion and written with its
    boxes, masks and labels. What cannot be used is listed in OUT/skipped.json, each case with its
    reason; OUT/import.json says how the cohort was made. Stop it and start it again: it goes on
    where it was.

    \b
    Example:
      lesionlens cohort import lld-mmri LLD-MMRI build/lld
      lesionlens cohort check build/lld
    """


def _command(name: str, importer: Importer) -> click.Command:
    parameters: list[click.Parameter] = [
        click.Argument(["source"], type=_PATH),
        *_of_fields(importer, argument=True),
        click.Argument(["out"], type=_PATH),
        *_of_fields(importer, argument=False),
        click.Option(
            ["--processes"], type=click.IntRange(1), default=1, show_default=True,
            help="Lesions imported side by side; the result is the same.",
        ),
    ]  # fmt: skip
    return click.Command(
        name, params=parameters, callback=_callback(name, importer), help=importer.HELP
    )


def _callback(name: str, importer: Importer) -> Callable[..., None]:
    def run(source: Path, out: Path, processes: int, **given: Any) -> None:
        from models.cohort.importers.run import run_import

        try:
            options = importer.Options(**given)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise InputError(
                fault["msg"][:1].lower() + fault["msg"][1:],
                field="--" + "-".join(str(part) for part in fault["loc"][:1]).replace("_", "-"),
                found=repr(fault["input"])[:60],
            ) from None
        with bar(f"importing {name}") as progress:
            report = run_import(name, source, out, options, processes=processes, progress=progress)
        click.echo(report.line)

    return run


def _of_fields(importer: Importer, *, argument: bool) -> list[click.Parameter]:
    made: list[click.Parameter] = []
    for name, field in importer.Options.model_fields.items():
        extra = field.json_schema_extra
        if argument == bool(isinstance(extra, dict) and extra.get("argument")):
            made.append(_argument(name, field) if argument else _option(name, field))
    return made


def _argument(name: str, field: FieldInfo) -> click.Parameter:
    return click.Argument([name], type=_kind(field.annotation)[0], required=field.is_required())


def _option(name: str, field: FieldInfo) -> click.Parameter:
    kind, how = _kind(field.annotation)
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}" if field.default else flag], is_flag=True,
                            default=field.default, help=field.description)  # fmt: skip
    return click.Option(
        [flag, name], type=kind, help=field.description, required=field.is_required(),
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        show_default=not field.is_required() and field.default not in (None, ()), **how,
    )  # fmt: skip


def _kind(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """A field's type as click knows it, and how often or how many."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _kind(next(part for part in inner if part is not type(None)))
    if origin is Literal:
        return click.Choice([str(value) for value in inner]), {}
    if origin is tuple and inner[-1] is Ellipsis:
        return _kind(inner[0])[0], {"multiple": True}
    if origin is tuple:
        return _kind(inner[0])[0], {"nargs": len(inner)}
    return (_PATH if annotation is Path else annotation), {}
