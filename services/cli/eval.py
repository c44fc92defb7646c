"""lesionlens eval: a bundle measured on its cohort's test split, beside the class-only control."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.cohort.format import read_cohort
from models.report.evaluation import render_evaluation
from models.trial.measure import measure
from models.trial.readings import Readings, read_split
from services.cli.record import write_record
from services.common.configured import read_settings
from services.common.store import resolve


@click.command("eval")
@click.option("--cohort", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--bundle", "reference", help="Folder or store tag; default: the latest bundle.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/eval"))
@click.option("--passes", default=8, show_default=True, help="Stochastic passes a lesion.")
@click.option("--seed", default=0, show_default=True)
def evaluate(folder: Path, reference: str | None, out: Path, passes: int, seed: int) -> None:
    """Measure a bundle on the cohort's test split.

    Writes report.json and report.html: accuracy and calibration, how well each feature is detected
    with 95 % intervals over lesions, and the class-only control beside it (what one would guess of
    the features from the predicted class alone). Thresholds never see the test split.

    \b
    Example:
      lesionlens eval --cohort build/demo/cohort --bundle build/demo/bundle
    """
    started = time.perf_counter()
    cohort = read_cohort(folder)
    bundle = read_bundle(resolve(reference, read_settings()))
    model = load_model(bundle)
    with Progress(console=Console(stderr=True)) as bar:

        def read(split: str) -> Readings:
            task = bar.add_task(f"reading {split}", total=len(cohort.lesions(split)))
            return read_split(
                cohort, split, bundle, model, passes=passes, seed=seed,
                progress=lambda done, _: bar.update(task, completed=done),
            )  # fmt: skip

        validation, test = read("validation"), read("test")
    report = measure(cohort, bundle, validation, test, seed)
    report["cost"] = {"seconds": round(time.perf_counter() - started, 1), "passes": passes}
    write_record(out / "report.json", report, made_by="lesionlens eval", seed=seed)
    (out / "report.html").write_text(render_evaluation(report), "utf-8")
    top = report["classifier"]["default"]
    click.echo(f"accuracy {top['accuracy']:.3f} {top['ci']} on {top['n_test']} test lesions")
    for name, row in report["probes"].items():
        click.echo(
            f"{name:12} macro AUROC {row['macro_auroc']:.3f}  within class "
            f"{row['within_class_auroc'] or float('nan'):.3f}  PPV {row['micro_ppv']:.3f}  "
            f"sensitivity {row['micro_sensitivity']:.3f}"
        )
    click.echo(f"{out / 'report.html'}")
