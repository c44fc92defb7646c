"""lesionlens cohort: make a phantom cohort, check a cohort, look at one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from models.errors import CohortError
from services.cli.bar import bar
from services.cli.cohort_ceiling import ceiling
from services.cli.cohort_import import cohort_import
from services.cli.cohort_labels import label

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
@click.option("--outside", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Also N abscesses, set aside as out of distribution.")  # fmt: skip
@click.option("--dicom", is_flag=True, help="Also write three DICOM series a patient.")
@click.option("--processes", type=click.IntRange(1), metavar="N",
              help="Lesions at once; the result is the same. Default: one a core.")  # fmt: skip
def phantom(
    out: Path, count: int, seed: int, outside: int, dicom: bool, processes: int | None
) -> None:
    """Write a synthetic cohort with voxel masks of every feature.

    Lesions are computed, not measured: six classes, fourteen features, three phases. Equal --n and
    --seed give equal files; each takes about 0.8 MB. A run that was stopped goes on when the same
    command is given again.

    \b
    Examples:
      lesionlens cohort phantom --out build/cohort --n 600 --seed 1
      lesionlens cohort phantom --out build/ood --n 600 --seed 1 --outside 200
    """
    from models.cohort.phantom import generate

    if (out / "cohort.json").exists():
        raise click.ClickException(f"{out} holds a cohort already; choose another --out")
    with bar("rendering lesions") as progress:
        made = generate(
            out, n=count, seed=seed, outside=outside, dicom=dicom,
            processes=processes or os.cpu_count() or 1, progress=progress,
        )  # fmt: skip
    sizes = ", ".join(f"{len(made.lesions(s))} {s}" for s in ("training", "validation", "test"))
    aside = f", {outside} abscesses set aside" if outside else ""
    click.echo(f"{out}: {len(made.lesions())} synthetic lesions ({sizes}){aside}")


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
    from models.cohort.format import SETS, SPLITS, read_cohort

    try:
        found = read_cohort(folder)
        with bar("checking lesions") as progress:
            faults = check_files(found, progress)
        if faults:
            raise CohortError(faults)
    except CohortError as error:
        for fault in error.faults:
            click.echo(fault, err=True)
        count = len(error.faults)
        click.echo(f"{folder}: {count} fault{'s' if count != 1 else ''}", err=True)
        sys.exit(2)
    shown = SETS if found.file.outside else SPLITS
    sizes = ", ".join(f"{len(found.lesions(s))} {s}" for s in shown)
    patients = len({lesion.patient_id for lesion in found.everything})
    kind = "synthetic lesions" if found.file.synthetic else "lesions"
    click.echo(
        f"{folder}: no faults; {len(found.everything)} {kind} of {patients} patients ({sizes}), "
        f"{found.hash}"
    )


@cohort.command()
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, default=Path("cohort.png"), show_default=True,
              help="PNG to write.")  # fmt: skip
@click.option("--lesion", "lesions", multiple=True, metavar="ID",
              help="A lesion to show; repeat for more. Default: two of every class.")  # fmt: skip
@click.option("--features", is_flag=True,
              help="Instead, each feature clear, faint and off. Phantoms only.")  # fmt: skip
def show(folder: Path, out: Path, lesions: tuple[str, ...], features: bool) -> None:
    """Draw a contact sheet of the cohort in FOLDER: phases, outlines of masks, labels.

    With --features, lesions of the phantom in FOLDER are rendered again, each with one feature at
    full strength, at the least, and switched off.

    \b
    Examples:
      lesionlens cohort show build/cohort --lesion L00003 --out lesion.png
      lesionlens cohort show build/cohort --features --out features.png
    """
    from models.cohort.format import read_cohort
    from models.cohort.sheet import contact_sheet

    if features and lesions:
        raise click.UsageError("--features chooses its lesions itself: leave --lesion out")
    found = read_cohort(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    if features:
        from models.cohort.phantom.gallery import feature_sheet
        from models.cohort.phantom.generate import seed_of

        with bar("rendering features") as progress:
            feature_sheet(seed_of(found.root), out, progress)
        click.echo(f"{out}: {len(found.file.features)} features, clear, faint and off")
        return
    shown = contact_sheet(found, lesions or None, out)
    click.echo(f"{out}: {len(shown)} lesion{'s' if len(shown) != 1 else ''}")


cohort.add_command(ceiling)
cohort.add_command(label)
cohort.add_command(cohort_import)
