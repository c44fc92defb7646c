"""lesionlens train: a cohort in, a model bundle out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.training.profiles import ACCELERATORS, PRECISIONS, PROFILES, profile
from services.training.stages import Report

if TYPE_CHECKING:
    from services.training.pipeline import TrainResult


@click.command(
    epilog="Example:  lesionlens cohort phantom --out build/cohort --n 400 &&  "
    "lesionlens train --cohort build/cohort --out build/model --profile demo"
)
@click.option(
    "--cohort",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder with cohort.json. Check it first with 'lesionlens cohort check'.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Output folder: bundle/ is the result, fit/ holds checkpoints, curves.csv and curves.png.",
)
@click.option(
    "--profile",
    "profile_name",
    type=click.Choice(list(PROFILES)),
    default="default",
    show_default=True,
    help="demo: about a minute. default: longer and more accurate. wang2019: the published "
    "network, for comparison.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed, cohort and machine give the same weights.",
)
@click.option("--epochs", type=click.IntRange(1), help="In place of the profile's number.")
@click.option(
    "--resume/--fresh",
    default=True,
    show_default=True,
    help="Continue what an earlier run of the same cohort, profile and seed left, or start anew.",
)
@click.option(
    "--store/--no-store",
    default=True,
    show_default=True,
    help="Register the bundle in the BentoML model store, where servers find it by name.",
)
@click.option(
    "--fold",
    metavar="k/K",
    help="Cross-validation: validate on fold k of K (by patient, stratified by class) of training "
    "and validation together; the test split stays as it is.",
)
@click.option(
    "--ensemble",
    "members",
    type=click.IntRange(1),
    help="Train so many networks of different seeds and export them as one classifier.",
)
@click.option(
    "--phase-dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of training views that lose a late phase, so that the bundle accepts studies "
    "without it. 0.3 is a fair start; 0 refuses them.",
)
@click.option(
    "--concepts",
    is_flag=True,
    help="Train feature heads beside the class, on the lesions whose features are labelled; the "
    "class is then read from the last layer and these heads together.",
)
@click.option(
    "--accelerator",
    type=click.Choice(ACCELERATORS),
    default="auto",
    show_default=True,
    help="auto: a GPU where torch can use one.",
)
@click.option(
    "--devices",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes on this machine, one a device. torchrun's own number counts under torchrun.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Machines; start the same command on each as Lightning's or torchrun's manual says.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="auto: mixed on a GPU, 32 bits on a CPU.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads of torch. One is fastest for this small network on most CPUs.",
)
def train(
    cohort: Path,
    out: Path,
    profile_name: str,
    seed: int,
    epochs: int | None,
    resume: bool,
    store: bool,
    fold: str | None,
    members: int | None,
    phase_dropout: float | None,
    concepts: bool,
    accelerator: str,
    devices: int,
    nodes: int,
    precision: str,
    threads: int,
) -> None:
    """Train the CNN on a cohort, fit the feature probes and write a model bundle.

    \b
    Stages, each printed with its seconds:
      load         every lesion on one grid in millimetres
      fit          the CNN; a checkpoint after every epoch
      export       classifier and gradients to ONNX, so that serving needs no torch
      parity       every output of both files against torch; stops if one is off
      activations  averages over stochastic passes, the lesion as the unit
      measurements enhancement, rim, texture and form, without the network
      calibrate    one temperature, on validation
      probes       one per radiological feature, from about ten labelled lesions each
      pairs        lesions with and without each feature: what it weighs
      review       when a person should look again, set on validation
      evaluation   the test split, looked at once
      trust        how far saliency maps of this network can be trusted
      bundle       all of it in one folder with checksums and a model card
      register     in the BentoML model store

    Stop with Ctrl-C at any time: the same command continues after the last whole epoch, and gives
    the same weights as a run that was never stopped. The weights are chosen on validation lesions.

    On several GPUs:  lesionlens train --devices 4 ...   or, on several machines, on each of them:
    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:PORT
    -m services.cli.main train ...   (the output folder is then one that all of them see).
    """
    # Here, so that --help does not wait for torch.
    from services.training.fit import Interrupted
    from services.training.hardware import Hardware
    from services.training.pipeline import NotFirst
    from services.training.pipeline import train as run
    from services.training.splits import Fold

    hardware = Hardware(accelerator, devices, nodes, precision, threads)
    screen = sys.stdout.isatty()
    try:
        result = run(
            cohort,
            out,
            profile(
                profile_name,
                epochs=epochs,
                members=members,
                phase_dropout=phase_dropout,
                concepts=concepts,
            ),
            seed,
            resume,
            StageLines(screen) if hardware.first else None,
            fold=Fold.parse(fold) if fold else None,
            bar=screen,
            store=store,
            hardware=hardware,
        )
    except Interrupted as stop:
        click.echo(
            f"stopped: {stop.epochs} whole epochs are kept; the same command continues", err=True
        )
        raise click.exceptions.Exit(130) from None
    except NotFirst:
        return  # the first process goes on to the bundle
    summary(result)


class StageLines:
    """A line a stage: its name and seconds, then what it came to."""

    def __init__(self, screen: bool) -> None:
        self.screen = screen
        self._wide = 0

    def __call__(self, report: Report) -> None:
        if report.seconds is not None:
            self._clear()
            click.echo(f"{report.stage:<12} {report.seconds:7.1f} s  {report.note}".rstrip())
        elif self.screen and report.stage.startswith("fit"):
            if not report.note.startswith("epoch "):  # Lightning's own bar tells of these
                self._clear()
                click.echo(f"{report.stage:<12} {report.note}")
        elif self.screen:
            share = f" {report.fraction:4.0%}" if report.fraction else ""
            line = f"{report.stage:<12} {report.note}{share}"
            click.echo("\r" + line.ljust(self._wide), nl=False)
            self._wide = len(line)
        elif report.note.startswith("epoch "):
            click.echo(f"{'':<12} {report.note}")

    def _clear(self) -> None:
        if self.screen and self._wide:
            click.echo("\r" + " " * self._wide + "\r", nl=False)
            self._wide = 0


def summary(result: TrainResult) -> None:
    """The end of the run, for people."""
    low, high = result.test_ci
    click.echo(
        f"\nbundle       {result.bundle}  ({result.hash})\n"
        + (f"model store  {result.tag}\n" if result.tag else "")
        + f"accuracy     validation {result.validation_accuracy:.3f}, "
        f"test {result.test_accuracy:.3f} (95 % {low:.3f} to {high:.3f}, n = {result.n_test})\n"
        f"total        {sum(result.stages.values()):.0f} s\n"
        f"next         lesionlens bundle describe {result.bundle}"
    )
