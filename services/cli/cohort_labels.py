"""lesionlens cohort label: readers' feature labels from a table join a cohort."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import CohortError, InputError
from services.cli.bar import bar

if TYPE_CHECKING:
    from models.cohort.labels import Merged, Reading
    from models.evaluation.agreement import Agreement, Figure
    from models.vocabulary import Vocabulary

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("cohort", type=_PATH)
@click.argument("table", type=_PATH)
@click.option(
    "--policy",
    default="majority",
    show_default=True,
    metavar="NAME",
    help="How several readers become one label: majority (ties are 'ignore'), unanimous "
    "(else 'ignore'), any (present if one reader says so).",
)
@click.option("--reader", metavar="NAME", help="The reader where TABLE names none.")
@click.option("--sheet", metavar="NAME", help="The sheet of an .xlsx file; default: the first.")
@click.option(
    "--new-features",
    is_flag=True,
    help="Names that the cohort lacks become features of it, instead of faults.",
)
@click.option(
    "--vocabulary",
    type=_PATH,
    metavar="FILE",
    help="Vocabulary whose labels and synonyms TABLE may use. Default: liver MRI.",
)
@click.option(
    "--count-ignore",
    is_flag=True,
    help="'ignore' counts as a third category of the agreement, not as no rating.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the bootstrap over lesions.",
)
@click.option(
    "--out",
    type=_PATH,
    metavar="FILE",
    help="The JSON to write, in the cohort's folder. Default: the cohort's own, a backup "
    "of which is kept.",
)
@click.option(
    "--agreement",
    "record",
    type=_PATH,
    metavar="FILE",
    help="Agreement statistics. Default: agreement.json in the cohort's folder.",
)
@click.option("--dry-run", is_flag=True, help="Check and print only; write nothing.")
def label(
    cohort: Path,
    table: Path,
    policy: str,
    reader: str | None,
    sheet: str | None,
    new_features: bool,
    vocabulary: Path | None,
    count_ignore: bool,
    seed: int,
    out: Path | None,
    record: Path | None,
    dry_run: bool,
) -> None:
    """Join the feature labels in TABLE (CSV or XLSX) to COHORT, and measure the readers' agreement.

    TABLE has the columns lesion, feature, status and, with several readers, reader; or one column a
    feature: lesion, reader, washout, central scar, ... A status is present, absent or ignore (could
    not be told); yes/no, 1/0, +/- and ? are understood. Each bad row is one line, exit code 2, and
    nothing is written.

    With two readers or more: percent agreement, Cohen's kappa a pair, Fleiss' kappa, each with a
    95 % interval by bootstrap over lesions.

    \b
    Example:
      lesion,feature,status,reader
      L001,washout,present,Ada
      L001,washout,absent,Ben
    \b
      lesionlens cohort label build/cohort labels.csv --dry-run
      lesionlens cohort label build/cohort labels.xlsx --policy unanimous
    """
    from models.cohort.format import read_cohort
    from models.cohort.labels import join, merge, read_readings

    try:
        found = read_cohort(cohort)
        words = _vocabulary(vocabulary) if vocabulary else None
        source = cohort / "cohort.json" if cohort.is_dir() else cohort
        target = _target(source, out)
        readings = read_readings(
            table, found.file, sheet=sheet, reader=reader, new_features=new_features,
            vocabulary=words,
        )  # fmt: skip
        merged = join(found.file, merge(readings, policy))
    except CohortError as error:
        for fault in error.faults:
            click.echo(fault, err=True)
        count = len(error.faults)
        click.echo(f"{count} fault{'s' if count != 1 else ''}; nothing was written", err=True)
        sys.exit(2)
    readers = sorted({r.reader for r in readings})
    measured = _measure(readings, count_ignore, seed)
    for line in _lines(measured, readers):
        click.echo(line)
    if not dry_run:
        _write(merged, source, target)
        _record(
            record or source.parent / "agreement.json",
            measured, merged, readers, len(readings), policy, count_ignore, seed, table.name,
        )  # fmt: skip
    _say(merged, readings, readers, target, dry_run)


def _vocabulary(path: Path) -> Vocabulary:
    from models.vocabulary import read_vocabulary

    try:
        return read_vocabulary(path)
    except (OSError, ValueError) as error:  # pydantic's and json's errors are ValueErrors
        raise InputError(
            "not a vocabulary", code="wrong_vocabulary", field="--vocabulary",
            found=f"{path.name} ({' '.join(str(error).split())[:120]})",
        ) from None  # fmt: skip


def _target(source: Path, out: Path | None) -> Path:
    """Where the new JSON goes. Raises InputError: its paths are relative to the cohort's folder."""
    if out is None:
        return source
    if out.is_dir() or out.resolve().parent != source.resolve().parent:
        raise InputError(
            "the new file must lie in the cohort's folder, since it names images relative to it",
            code="wrong_target", field="--out", found=str(out),
            expected=f"a file in {source.parent}, such as {source.parent / 'labelled.json'}",
        )  # fmt: skip
    return out


def _measure(readings: Sequence[Reading], count_ignore: bool, seed: int) -> dict[str, Agreement]:
    from models.cohort.labels import rating_matrix
    from models.evaluation.agreement import agreement

    measured = {}
    features = sorted({r.feature for r in readings})
    with bar("comparing readers") as progress:
        for done, feature in enumerate(features, start=1):
            _, readers, codes = rating_matrix(readings, feature, count_ignore=count_ignore)
            measured[feature] = agreement(
                codes, readers, categories=3 if count_ignore else 2, seed=seed
            )
            progress(done, len(features))
    return measured


def _lines(measured: dict[str, Agreement], readers: Sequence[str]) -> list[str]:
    """The printed table: a line a feature, and an indented one a pair of readers."""
    if len(readers) < 2:
        return [f"one reader ({readers[0]}): no agreement to measure"]
    width = max(len("feature"), *map(len, measured), *(2 + len(p) for p in _pair_names(measured)))
    head = f"{'feature':{width}}  lesions  shared  present  {'agreement':19}  kappa"
    lines = [head, "-" * (len(head) + 18)]
    for feature, a in measured.items():
        lines.append(
            f"{feature:{width}}  {a.lesions:7}  {a.shared:6}  {a.prevalence[1]:7.0%}  "
            f"{_shown(a.percent):19}  Fleiss {_shown(a.fleiss)}"
        )
        lines += [
            f"  {' - '.join(p.readers):{width - 2}}  {'':7}  {p.kappa.n:6}  {'':7}  "
            f"{_shown(p.percent):19}  Cohen  {_shown(p.kappa)}"
            for p in a.pairs
        ]
    return lines


def _pair_names(measured: dict[str, Agreement]) -> list[str]:
    return [" - ".join(p.readers) for a in measured.values() for p in a.pairs]


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return "undefined"
    interval = f" [{figure.ci[0]:.2f}, {figure.ci[1]:.2f}]" if figure.ci else ""
    return f"{figure.value:.2f}{interval}"


def _write(merged: Merged, source: Path, target: Path) -> None:
    """The new JSON, whole or not at all; the old one stays beside it, numbered."""
    from models.cohort.format import write_cohort

    if target == source and not merged.added and not merged.changed:
        return
    if target.exists():
        numbers = (n for n in range(1, 10_000))
        backups = (target.with_name(f"{target.name}.{n}.bak") for n in numbers)
        shutil.copy2(target, next(b for b in backups if not b.exists()))
    write_cohort(target.parent, merged.file, target.name)


def _record(
    path: Path,
    measured: dict[str, Agreement],
    merged: Merged,
    readers: Sequence[str],
    readings: int,
    policy: str,
    count_ignore: bool,
    seed: int,
    table: str,
) -> None:
    from services.cli.record import write_record

    data: dict[str, Any] = {
        "table": table,
        "readings": readings,
        "readers": list(readers),
        "policy": policy,
        "categories": ["absent", "present", *(["ignore"] if count_ignore else [])],
        "labels": {"added": merged.added, "changed": merged.changed, "same": merged.unchanged},
        "features": {feature: a.as_dict() for feature, a in measured.items()},
    }
    write_record(path, data, made_by="lesionlens cohort label", seed=seed)


def _say(
    merged: Merged, readings: Sequence[Reading], readers: Sequence[str], target: Path, dry: bool
) -> None:
    for pair in merged.contradicting[:5]:
        click.echo(f"note: {pair} is labelled absent, but the cohort holds a mask of it", err=True)
    more = len(merged.contradicting) - 5
    if more > 0:
        click.echo(f"note: and {more} more of this kind", err=True)
    ties = sum(status == "ignore" for status in merged.status.values())
    lesions = len({lesion for lesion, _ in merged.status})
    click.echo(
        f"{target}: {len(readings)} readings by {len(readers)} reader{'s'[: len(readers) != 1]} of "
        f"{lesions} lesions; labels: {merged.added} new, {merged.changed} changed, "
        f"{merged.unchanged} as before ({ties} are 'ignore')"
        + ("; dry run, nothing written" if dry else "")
    )
