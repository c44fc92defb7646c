"""lesionlens cohort: make a phantom cohort, check a cohort, look at one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from models.errors import CohortError

_FOLDER = click.Path(path_type=Path)


@click.group()
def cohort() -> None:
    """Make, check and look at cohorts.

    A cohort is a folder with a cohort.json and the NIfTI files that it names: three contrast
    phases a lesion, a box on each, a class, radiological features, optional masks.

    \b
    Example, from nothing to a picture:
      lesionlens cohort phantom --out build/cohort --n 60 --seed 1
      lesionlens cohort check build/cohort
      lesionlens cohort show build/cohort --out build/cohort.png
    """


@cohort.command()
@click.option("--out", type=_FOLDER, required=True, help="Folder to write; made if missing.")
@click.option("--n", "count", type=click.IntRange(1), default=120, show_default=True, metavar="N",
              help="Number of lesions.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Lesion i depends on the seed and i alone.")  # fmt: skip
@click.option("--dicom", is_flag=True, help="Also write three DICOM series a patient.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True,
              help="Lesions rendered side by side; the result is the same.")  # fmt: skip
def phantom(out: Path, count: int, seed: int, dicom: bool, processes: int) -> None:
    """Write a synthetic cohort with voxel masks of every feature.

    Lesions are computed, not measured: six classes, fourteen features, three phases. Equal --n and
    --seed give equal files.

    \b
    Example:
      lesionlens cohort phantom --out build/cohort --n 600 --seed 1 --processes 2
    """
    from models.cohort.phantom import generate

    if (out / "cohort.json").exists():
        raise click.ClickException(f"{out} holds a cohort already; choose another --out")
    with _bar("rendering lesions") as progress:
        made = generate(
            out, n=count, seed=seed, dicom=dicom, processes=processes, progress=progress
        )
    sizes = ", ".join(f"{len(made.lesions(s))} {s}" for s in ("training", "validation", "test"))
    click.echo(f"{out}: {len(made.lesions())} synthetic lesions ({sizes})")


@cohort.command()
@click.argument("folder", type=_FOLDER)
def check(folder: Path) -> None:
    """Read and check every file of the cohort in FOLDER.

    Each fault is one line, 'lesion <id>: <field>: ...'. Exit code 0: no fault; 2: faults. A patient
    in two splits is a fault.

    \b
    Example:
      lesionlens cohort check build/cohort
    """
    from models.cohort.check import check_files
    from models.cohort.format import SPLITS, read_cohort

    try:
        found = read_cohort(folder)
        with _bar("checking lesions") as progress:
            faults = check_files(found, progress)
        if faults:
            raise CohortError(faults)
    except CohortError as error:
        for fault in error.faults:
            click.echo(fault, err=True)
        count = len(error.faults)
        click.echo(f"{folder}: {count} fault{'s' if count != 1 else ''}", err=True)
        sys.exit(2)
    sizes = ", ".join(f"{len(found.lesions(s))} {s}" for s in SPLITS)
    patients = len({lesion.patient_id for lesion in found.lesions()})
    kind = "synthetic lesions" if found.file.synthetic else "lesions"
    click.echo(
        f"{folder}: no faults; {len(found.lesions())} {kind} of {patients} patients ({sizes}), "
        f"{found.hash}"
    )


@cohort.command()
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, default=Path("cohort.png"), show_default=True,
              help="PNG to write.")  # fmt: skip
@click.option("--lesion", "lesions", multiple=True, metavar="ID",
              help="A lesion to show; repeat for more. Default: two of every class.")  # fmt: skip
def show(folder: Path, out: Path, lesions: tuple[str, ...]) -> None:
    """Draw a contact sheet of the cohort in FOLDER: phases, outlines of masks, labels.

    \b
    Example:
      lesionlens cohort show build/cohort --lesion phantom-000003 --out lesion.png
    """
    from models.cohort.format import read_cohort
    from models.cohort.sheet import contact_sheet

    found = read_cohort(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    shown = contact_sheet(found, lesions or None, out)
    click.echo(f"{out}: {len(shown)} lesion{'s' if len(shown) != 1 else ''}")


@contextmanager
def _bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
