"""lesionlens reproduce: the published experiment again, its tables beside the published figures."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from models.errors import InputError


@click.command(
    "reproduce",
    epilog="Example:  lesionlens reproduce --quick --out build/reproduce-quick   (a minute or two)",
)
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True,
              help="Networks to train; the paper has 20. Finished ones are kept.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/reproduce"),
              show_default=True, help="Report and kept runs.")  # fmt: skip
@click.option("--cohort", "folder", type=click.Path(path_type=Path),
              help="A cohort with feature labels; default: a synthetic one of 494.")  # fmt: skip
@click.option("--profile", "name", default="default", show_default=True,
              help="The network: 'default', or 'wang2019' as published (slower).")  # fmt: skip
@click.option("--processes", type=click.IntRange(1, 8), default=2, show_default=True,
              help="Runs side by side, one thread each.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of the first run.")
@click.option("--quick", is_flag=True, help="Tens of lesions, two epochs: does it run?")
def reproduce(
    runs: int,
    out: Path,
    folder: Path | None,
    name: str,
    processes: int,
    seed: int,
    quick: bool,
) -> None:
    """Train N networks and print the papers' tables, ours beside the published figures.

    \b
    As in Wang et al. 2019 (European Radiology 29:3348): 494 lesions of six classes, 60 of them
    for test (ten a class), 14 features, ten labelled lesions a feature, 100 stochastic passes of a
    labelled and a test lesion. Each run trains a network, draws the labelled lesions anew, and asks
      default             our probes
      wang2019_gaussian   the Gaussian ratio of that paper
      spie_rodeo          the kernel density ratio of SPIE 10950 (2019)
    which features the test lesions show.

    Intervals are 95 %, over test lesions and over retrainings at once. Stop it at any time:
    finished runs are kept, trainings have checkpoints, and the same command goes on; a larger
    --runs adds to what is there.
    """
    # Before anything numeric starts: runs side by side share the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if folder is not None and not folder.is_dir():
        raise InputError("there is no such folder", field="cohort", found=str(folder))
    report, page = _measured(runs, out, folder, name, processes, seed, quick)
    from models.report.reproduce import console_table
    from services.cli.record import write_record

    write_record(out / "report.json", report, made_by="lesionlens reproduce", seed=seed)
    (out / "report.html").write_text(page, "utf-8")
    for line in console_table(report):
        click.echo(line)
    click.echo(f"{out / 'report.html'}")


def _measured(
    runs: int, out: Path, folder: Path | None, name: str, processes: int, seed: int, quick: bool
) -> tuple[dict[str, Any], str]:
    import numpy as np

    from models.report.reproduce import render_reproduction
    from models.trial.reproduce import tables
    from services.cli.reproduce_run import (
        QUICK,
        Plan,
        Stopped,
        open_arrays,
        open_cohort,
        rows_of,
        run_all,
    )
    from services.training.trial import open_split
    from services.training.vocabularies import vocabulary_of

    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        click.echo(text, err=True)

    # The published network's own number of steps is half as many, each three times as dear.
    plan = (QUICK if quick else Plan()).model_copy(
        update={"profile": name, "seed": seed} | ({"steps": None} if name != "default" else {})
    )
    cohort = open_cohort(out, plan, folder, say)
    training, validation, test = rows_of(cohort, plan)
    arrays = open_arrays(out, plan, cohort, say)
    split, vocabulary = open_split(arrays), vocabulary_of(cohort)
    if not (split.features[training] == 1).any() or not (split.features[test] == 1).any():
        raise InputError(
            "the cohort's lesions have no feature labels", code="no_labels", field="cohort",
            found=cohort.file.name, expected="features labelled in training and test lesions",
        )  # fmt: skip
    try:
        done = dict(run_all(out, plan, cohort, arrays, runs, processes, say))
    except Stopped:
        say("stopped: finished runs are kept; the same command goes on")
        raise click.exceptions.Exit(130) from None
    report = tables(
        [done[i] for i in sorted(done)],
        np.asarray(split.features[test], np.float64), split.classes[test],
        vocabulary.feature_ids, vocabulary.class_ids, seed=seed,
    )  # fmt: skip
    report = {
        "cohort": cohort.file.name,
        "synthetic": cohort.file.synthetic,
        "quick": quick,
        "plan": plan.model_dump(mode="json"),
        "n": {"training": len(training), "validation": len(validation), "test": len(test)},
        "seconds": round(time.perf_counter() - started, 1),
        **report,
    }
    return report, render_reproduction(report)
