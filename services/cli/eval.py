"""lesionlens eval: the whole evaluation on a synthetic cohort of its own, or one bundle's."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from models.errors import InputError


@click.command(
    "eval",
    epilog="Example:  lesionlens eval --quick --out build/eval-quick   (a few minutes)",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/eval"),
              show_default=True, help="Report and kept parts.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Tens of lesions, two epochs: does it run?")
@click.option("--processes", type=click.IntRange(1, 2), default=2, show_default=True,
              help="Trainings side by side, one thread each.")  # fmt: skip
@click.option(
    "--bundle", "reference", help="With --cohort: folder or store tag; default: the latest."
)
@click.option(
    "--cohort",
    "folder",
    type=click.Path(path_type=Path),
    help="Measure one bundle on this cohort, nothing else.",
)
@click.option("--passes", default=8, show_default=True,
              help="With --cohort: stochastic passes a lesion.")  # fmt: skip
def evaluate(
    out: Path,
    quick: bool,
    processes: int,
    reference: str | None,
    folder: Path | None,
    passes: int,
) -> None:
    """Measure everything that is claimed, on a synthetic cohort made for it.

    \b
    Makes report.json, report.html, learning_curve.json and learning_curve.png:
      classifier      the default and wang2019, trained on the same 500 lesions, on 1,500 unseen
                      ones: accuracy, calibration error, and their paired difference
      learning curve  the default on 125, 250, 500, 1,000 and 2,000 lesions
      probes          how well each feature is detected: the default beside the published methods
                      and a class-only control, three labelling draws
      relevance       what a feature is said to weigh, against what happens when it is really
                      switched off in the rendering
      errors          how mistakes are told beforehand, in distribution and on stress cohorts
      maps            every map method against true masks, and its trust card
      ood             AUROC of the out-of-distribution score: a class never trained, spoiled
                      images, real MR images of no liver

    Up to an hour on two quiet cores. Stop it at any time: each part is kept under OUT/parts with a
    digest of configuration, data, seed and code, trainings have checkpoints, and the same command
    goes on. All intervals are 95 %, over lesions; validation lesions choose, test lesions nothing.

    \b
    One bundle on the test split of your own cohort, in a minute or two:
      lesionlens eval --cohort build/demo/cohort --bundle build/demo/bundle
    """
    if reference is not None and folder is None:
        raise InputError(
            "a bundle is measured on a cohort", field="cohort", found="none",
            expected="--cohort FOLDER beside --bundle",
        )  # fmt: skip
    # Before anything numeric starts: trainings side by side share the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if folder is not None:
        report, seed = _one_bundle(folder, reference, out, passes), 0
    else:
        report, seed = _everything(out, quick, processes)
    from services.cli.eval_report import write_report

    write_report(out, report, seed)
    _say(report, out)


def _everything(out: Path, quick: bool, processes: int) -> tuple[dict[str, Any], int]:
    from services.cli.eval_plan import QUICK, Plan
    from services.cli.eval_report import join_parts
    from services.cli.eval_run import Stopped, run_parts

    plan = QUICK if quick else Plan()
    out.mkdir(parents=True, exist_ok=True)
    try:
        parts = run_parts(out, plan, processes)
    except Stopped:
        click.echo("stopped: finished parts are kept; the same command goes on", err=True)
        raise click.exceptions.Exit(130) from None
    return join_parts(plan, parts), plan.seed


def _one_bundle(folder: Path, reference: str | None, out: Path, passes: int) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import Progress

    from models.bundle.read import read_bundle
    from models.bundle.runtime import load_model
    from models.cohort.format import read_cohort
    from models.trial.bundle import measure_bundle
    from services.cli.eval_outliers import measure_outliers
    from services.common.configured import read_settings
    from services.common.store import resolve

    started = time.perf_counter()
    cohort = read_cohort(folder)
    bundle = read_bundle(resolve(reference, read_settings()))
    model = load_model(bundle)
    with Progress(console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def tell(note: str, done: int, total: int) -> None:
            if note not in tasks:
                tasks[note] = bar.add_task(note, total=total)
            bar.update(tasks[note], completed=done)

        report = measure_bundle(cohort, bundle, model, passes=passes, progress=tell)
        report |= measure_outliers(
            cohort, bundle, model, spoil=100, real=20, downloads=out / "real", seed=0, progress=tell
        )
    report["cost"] = {"seconds": round(time.perf_counter() - started, 1), "passes": passes}
    return report


def _say(report: dict[str, Any], out: Path) -> None:
    for name in ("default", "wang2019"):
        if name in report["classifier"]:
            row = report["classifier"][name]
            click.echo(
                f"{name:25} accuracy {_three(row['accuracy'])} {_range(row['ci'])}, ECE "
                f"{_three(row['ece'])}, {row['n_train']} training and {row['n_test']} test lesions"
            )
    gap = report["classifier"].get("default_less_wang2019")
    if gap:
        click.echo(f"{'difference':25} {gap['difference']:+.3f} {_range(gap['ci'])}, paired")
    for name, row in report["probes"].items():
        click.echo(
            f"{'probes ' + name:25} macro AUROC {_three(row['macro_auroc'])}, within class "
            f"{_three(row['within_class_auroc'])}, PPV {_three(row['micro_ppv'])}, "
            f"sensitivity {_three(row['micro_sensitivity'])}"
        )
    if "relevance" in report:
        row = report["relevance"]
        click.echo(
            f"{'relevance':25} Spearman with truth {_three(row['spearman'])} "
            f"{_range(row['spearman_ci'])}, sign agreement {_three(row['sign_agreement'])}"
        )
    row = report["errors"]
    if "stress_wins" in row:
        click.echo(
            f"{'errors':25} AUROC {_three(row['auroc'])}, less max-softmax "
            f"{_range(row['paired_ci'])}, {row['stress_wins']} of {len(row['stress'])} stress "
            "cohorts won"
        )
    if "maps" in report:
        row = report["maps"]["default"]
        click.echo(
            f"{'maps default':25} pointing {_three(row['pointing'])}, AUPRC "
            f"{_three(row['auprc'])}, above both controls on {report['maps']['beats_controls']} "
            f"of {len(row['per_feature'])} features"
        )
    for name, row in report["ood"].items():
        click.echo(
            f"{'ood ' + name:25} AUROC {_three(row['auroc'])} {_range(row['ci'])}, "
            f"{_three(row['flagged'])} of {row['n']} flagged"
        )
    inside = report["ood_inside"]
    click.echo(f"{'known classes':25} {_three(inside['flagged'])} of {inside['n']} flagged")
    for name, why in report["ood_missing"].items():
        click.echo(f"not measured: {name}: {why}", err=True)
    click.echo(f"{out / 'report.html'}")


def _three(value: float | None) -> str:
    """Three digits; a figure may be undefined on few lesions."""
    return "undefined" if value is None else f"{value:.3f}"


def _range(ci: list[float] | None) -> str:
    return "(no interval)" if ci is None else f"({ci[0]:.3f} to {ci[1]:.3f})"
