"""lesionlens demo: cohort -> CNN -> bundle -> services -> prediction -> explanation -> report."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console
from rich.table import Table

from models.bundle.read import read_bundle
from models.cohort.format import Cohort, read_cohort
from models.cohort.load import load_study
from models.cohort.nifti import nifti_bytes
from models.cohort.phantom.generate import TRUTH_FILE, VERSION, generate
from models.errors import LensError
from models.volume import Study
from services.cli.explain_remote import explain_remote
from services.cli.record import write_record
from services.cli.stack import Stack, free_ports
from services.cli.train import StageLines
from services.common.configured import read_settings
from services.training.pipeline import train
from services.training.profiles import profile
from wire.api import ExplanationParameters

PROFILE = "demo"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/demo"))
@click.option("--lesions", default=640, show_default=True, help="Synthetic lesions to make.")
@click.option("--seed", default=1, show_default=True)
@click.option("--fresh", is_flag=True, help="Make cohort and bundle again.")
def demo(out: Path, lesions: int, seed: int, fresh: bool) -> None:
    """The whole path on synthetic lesions, for real, in a few minutes.

    Makes a cohort, trains the CNN, exports and checks the bundle, starts Redis, the inference
    service and a worker on free ports, asks for one prediction and one explanation over HTTP,
    writes the report, and stops everything. A second run reuses cohort and bundle.
    """
    timer = Stages()
    with timer.stage("cohort") as say:
        cohort = _cohort(out / "cohort", lesions, seed, fresh)
        say(f"{len(cohort.lesions())} synthetic lesions, {len(cohort.file.features)} features")
    record = _trained(cohort, out, seed, fresh, timer)
    bundle = read_bundle(out / "bundle")
    entry = cohort.lesions("test")[0]
    study = load_study(cohort, entry, bundle.manifest.phases)
    ports = free_ports(2)
    settings = read_settings().model_copy(
        update={
            "home": (out / "home").resolve(),
            "port": ports[0],
            "grpc_port": 0,
            "redis_port": ports[1],
        }
    )
    stack = Stack(settings, bundle.path)
    try:
        with timer.stage("services") as say:
            stack.start()
            stack.wait_ready()
            say(f"redis, inference and worker at {stack.url}")
        with timer.stage("prediction") as say:
            predicted = _predict(stack.url, study)
            say(f"{predicted['label']}, lesion {entry.lesion_id} (drawn as {entry.class_id})")
        with timer.stage("explanation") as say:
            job = _explain(stack.url, study, out)
            say(f"job {job['id']} in {job['seconds']:.1f} s")
    finally:
        with timer.stage("stop") as say:
            stack.stop()
            say("no process left running")
    summary = {key: record[key] for key in ("test_accuracy", "test_ci", "n_train", "n_test")} | {
        "parity_max_abs": record["parity_max_abs"],
        "stages": timer.seconds,
        "bundle": bundle.hash,
        "lesion": entry.lesion_id,
        "job": job,
        "report": str(out / "report.html"),
        "synthetic": True,
    }
    write_record(out / "summary.json", summary, made_by="lesionlens demo", seed=seed)
    _table(timer, summary, out)


class Stages:
    """Times of the demo's stages; each says one line when it ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.notes: dict[str, str] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[Any]:
        start = time.perf_counter()
        yield lambda note: self.notes.update({name: note})
        self.seconds[name] = round(time.perf_counter() - start, 2)
        click.echo(f"{name:<12} {self.seconds[name]:7.1f} s  {self.notes.get(name, '')}")


def _cohort(folder: Path, lesions: int, seed: int, fresh: bool) -> Cohort:
    """The phantom cohort, made anew unless the same one lies there already."""
    try:
        truth = json.loads((folder / TRUTH_FILE).read_text("utf-8"))
        made = (truth["generator"], truth["seed"], len(truth["lesions"]))
        if made == (VERSION, seed, lesions) and not fresh:
            return read_cohort(folder)
    except (OSError, ValueError, KeyError, LensError):
        pass
    screen = sys.stdout.isatty()

    def show(done: int, total: int) -> None:
        if screen:
            click.echo(f"\rcohort       lesion {done} of {total}", nl=done == total)
        elif done % 200 == 0:
            click.echo(f"{'':<12} lesion {done} of {total}")

    return generate(
        folder,
        n=lesions,
        seed=seed,
        splits=(0.55, 0.15, 0.30),
        processes=os.cpu_count() or 1,
        progress=show,
    )


def _trained(cohort: Cohort, out: Path, seed: int, fresh: bool, timer: Stages) -> dict[str, Any]:
    """The training's record; `out`/bundle is what came of this very cohort, profile and seed."""
    if not fresh:
        record = _record_of_same(cohort, out, seed)
        if record is not None:
            with timer.stage("bundle") as say:
                say("reused: same cohort, profile and seed")
            return record
    lines = StageLines(sys.stdout.isatty())
    settings = read_settings()
    result = train(cohort.root, out, PROFILE, seed, not fresh, lines, settings=settings)
    timer.seconds |= result.stages
    return asdict(result)


def _record_of_same(cohort: Cohort, out: Path, seed: int) -> dict[str, Any] | None:
    """The record of an earlier training on the same cohort, profile and seed; None without one."""
    wanted = {
        "config": profile(PROFILE).model_dump(mode="json"),
        "cohort": cohort.hash,
        "seed": seed,
    }
    try:
        training = read_bundle(out / "bundle").training
        if any(training.get(key) != value for key, value in wanted.items()):
            return None
        return json.loads((out / "train.json").read_text("utf-8"))
    except (LensError, OSError, ValueError):  # none yet, or damaged: train again
        return None


def _predict(url: str, study: Study) -> dict[str, Any]:
    files = {
        phase: (f"{phase}.nii.gz", nifti_bytes(volume), "application/gzip")
        for phase, volume in study.volumes.items()
    }
    boxes = {f"box.{phase}": json.dumps(box.as_list()) for phase, box in study.boxes.items()}
    answer = httpx.post(f"{url}/v1/predictions", files=files, data=boxes, timeout=60)
    answer.raise_for_status()
    return answer.json()


def _explain(url: str, study: Study, out: Path) -> dict[str, Any]:
    """Ask for an explanation as any client would, and keep what comes back."""
    shown = -1

    def show(stage: str, fraction: float) -> None:
        nonlocal shown
        if int(fraction * 4) > shown:
            shown = int(fraction * 4)
            click.echo(f"{'':<12} {fraction:4.0%}  {stage}")

    start = time.perf_counter()
    fetched = explain_remote(url, study, ExplanationParameters(), show)
    seconds = time.perf_counter() - start
    (out / "explanation.json").write_bytes(fetched.document)
    (out / "report.html").write_bytes(fetched.report)
    (out / "maps.npz").write_bytes(fetched.maps)
    if fetched.job is None:
        raise LensError("the server named no job")
    return {
        "id": fetched.job.id,
        "state": fetched.job.state.value,
        "seconds": round(seconds, 2),
    }


def _table(timer: Stages, summary: dict[str, Any], out: Path) -> None:
    table = Table(title="LesionLens demo (synthetic lesions; research software)")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, seconds in timer.seconds.items():
        table.add_row(name, f"{seconds:.1f}")
    table.add_section()
    table.add_row("total", f"{sum(timer.seconds.values()):.1f}")
    Console().print(table)
    low, high = summary["test_ci"]
    click.echo(
        f"test accuracy {summary['test_accuracy']:.3f} (95 % {low:.3f} to {high:.3f}) on "
        f"{summary['n_test']} unseen synthetic lesions\n"
        f"report        {out / 'report.html'}\n"
        f"next          make up, then: lesionlens explain --help"
    )
