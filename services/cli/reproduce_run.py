"""Runs of `lesionlens reproduce`: what they read, what they leave behind, two side by side.

<out>/cohort-<digest>/       the synthetic cohort, unless another one is given
<out>/arrays-<digest>/       its lesions as the network sees them
<out>/fits/<digest>/         the network of a run: checkpoints, curves
<out>/runs/<digest>.npz      what a finished run said of the test lesions
<out>/runs/<digest>.json     its seconds

The digest of run i covers the data, the configuration, the seed i and the code, so a run is found
again, and is done again when anything that decides it has changed. Where only the detectors have
changed, its network is still there.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.cohort.format import Cohort, read_cohort
from models.errors import InputError
from models.trial.reproduce import Answer, Run, published_split
from services.cli.eval_plan import code
from services.training.profiles import Profile, profile

Tell = Callable[[int, str], None]

_IMAGE = ("models/volume.py", "models/voi.py", "models/cohort/load.py", "models/cohort/nifti.py")
_FIT = ("models/cnn", "models/passes.py", "services/training/fit.py")
_DETECT = (
    "models/imaging", "models/ood", "models/probes", "models/trial/published.py",
    "models/trial/reproduce.py", "services/training/activations.py",
    "services/training/detectors.py", "services/training/measurements.py",
    "services/training/rerun.py",
)  # fmt: skip


class Plan(BaseModel):
    """Numbers of the experiment; the papers' where they give them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lesions: int = 494
    cohort_seed: int = 3348
    per_class: int = Field(10, description="Test lesions of each class.")
    validation: int = Field(10, description="Validation lesions of each class, out of training.")
    profile: str = "default"
    steps: int | None = Field(800, description="Training steps; None: the profile's own.")
    epochs: int | None = None
    labelled: int = Field(10, description="Lesions labelled a feature.")
    labelled_passes: int = 100
    test_passes: int = 100
    spie_passes: int = 30
    unlabelled_passes: int = 20
    validation_passes: int = 25
    draws: int = Field(1000, description="Marginal draws of each class, SPIE 2019.")
    seed: int = Field(0, description="Run i is trained and labelled with seed + i.")

    @property
    def config(self) -> Profile:
        """The training's parameters."""
        numbers = {"labelled": self.labelled, "passes": self.validation_passes}
        chosen = profile(self.profile).model_copy(update=numbers)
        given = {"steps": self.steps, "epochs": self.epochs}
        update = {k: v for k, v in given.items() if v is not None}
        return chosen.model_copy(
            update={"optimisation": chosen.optimisation.model_copy(update=update)}
        )

    def fit_digest(self, data: str, run: int) -> str:
        """Of everything that decides the network of run number `run`; data: hash of the cohort."""
        config = self.config.model_dump(
            mode="json", include={"architecture", "optimisation", "preprocessing", "phase_dropout"}
        )
        split = (self.per_class, self.validation, self.cohort_seed)
        return _digest(data, config, split, self.seed + run, code(*_IMAGE, *_FIT))

    def digest(self, data: str, run: int) -> str:
        """Of everything that decides what run number `run` says of the test lesions."""
        numbers = self.model_dump(mode="json", exclude={"seed"})
        config = self.config.model_dump(mode="json")
        return _digest(self.fit_digest(data, run), numbers, config, code(*_DETECT))


QUICK = Plan(
    lesions=60, per_class=2, validation=2, steps=None, epochs=2, labelled=3, labelled_passes=4,
    test_passes=4, spie_passes=3, unlabelled_passes=2, validation_passes=3, draws=10,
)  # fmt: skip


class Stopped(Exception):
    """Ctrl-C; what is finished is kept."""


def _digest(*values: object) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_cohort(out: Path, plan: Plan, folder: Path | None, say: Callable[[str], None]) -> Cohort:
    """The cohort in `folder`, or a synthetic one made for this under `out`."""
    from models.cohort.phantom.generate import VERSION, generate

    if folder is not None:
        return read_cohort(folder)
    place = out / f"cohort-{_digest(VERSION, plan.lesions, plan.cohort_seed)}"
    if (place / "cohort.json").is_file():
        return read_cohort(place)
    say(f"making {plan.lesions} synthetic lesions (about 0.3 CPU-seconds each)")
    return generate(place, n=plan.lesions, seed=plan.cohort_seed, processes=2)


def open_arrays(out: Path, plan: Plan, cohort: Cohort, say: Callable[[str], None]) -> Path:
    """Folder of the lesions as arrays, read once for all runs."""
    from models.cnn.data import load_split
    from services.training.splits import NAMES, join
    from services.training.trial import save_split
    from services.training.vocabularies import vocabulary_of

    config = plan.config
    spec = config.preprocessing.model_dump(mode="json")
    place = out / f"arrays-{_digest(cohort.hash, spec, code(*_IMAGE))}"
    if not (place / "lesions.json").is_file():
        say("reading the lesions")
        vocabulary = vocabulary_of(cohort)
        optional = config.optional_phases(vocabulary.phase_ids)
        save_split(
            join([
                load_split(cohort, n, vocabulary, config.preprocessing, optional_phases=optional,
                           threads=2)
                for n in NAMES if cohort.lesions(n)
            ]),
            place,
        )  # fmt: skip
    return place


def rows_of(cohort: Cohort, plan: Plan) -> tuple[NDArray[np.int64], ...]:
    """Training, validation and test rows of the arrays: the same in all runs."""
    from services.training.splits import NAMES

    entries = [e for name in NAMES for e in cohort.lesions(name)]
    known = list(cohort.file.classes)
    classes = np.array([known.index(e.class_id) for e in entries])
    patients = [e.patient_id for e in entries]
    return published_split(patients, classes, plan.per_class, plan.validation, plan.cohort_seed)


def finished(out: Path, digest: str) -> Run | None:
    """A run that is done, or None."""
    try:
        with np.load(out / "runs" / f"{digest}.npz", allow_pickle=False) as held:
            names = [str(n) for n in held["names"]]
            answers = {
                n: Answer(held[f"{n}/scores"], held[f"{n}/found"], held[f"{n}/first"])
                for n in names
            }
            return Run(held["predicted"], answers)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def keep(out: Path, digest: str, run: Run, seconds: dict[str, float]) -> None:
    """Write a finished run; the .npz appears whole or not at all."""
    place = out / "runs"
    place.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {
        "names": np.array(list(run.answers)), "predicted": run.predicted
    }  # fmt: skip
    for name, answer in run.answers.items():
        arrays |= {f"{name}/scores": answer.scores, f"{name}/found": answer.found,
                   f"{name}/first": answer.first}  # fmt: skip
    (place / f"{digest}.json").write_text(json.dumps({"seconds": seconds}) + "\n", "utf-8")
    partial = place / f"{digest}.part.npz"
    np.savez(partial, allow_pickle=False, **arrays)
    os.replace(partial, place / f"{digest}.npz")  # noqa: PTH105 - atomic on every system


def run_one(out: Path, plan: Plan, cohort_folder: Path, arrays: Path, i: int, tell: Tell) -> str:
    """Do run i and keep it; returns its digest."""
    from services.training.rerun import Sizes, rerun
    from services.training.splits import Splits, take
    from services.training.trial import open_split
    from services.training.vocabularies import vocabulary_of

    cohort = read_cohort(cohort_folder)
    digest = plan.digest(cohort.hash, i)
    whole = open_split(arrays)
    splits = Splits(*(take(whole, rows) for rows in rows_of(cohort, plan)))
    folder = out / "fits" / plan.fit_digest(cohort.hash, i)
    sizes = Sizes(
        plan.labelled_passes, plan.test_passes, plan.spie_passes, plan.unlabelled_passes, plan.draws
    )
    start = time.perf_counter()
    run, seconds = rerun(
        splits, vocabulary_of(cohort), plan.config, folder, plan.seed + i, cohort.hash, sizes,
        lambda report: tell(i, f"{report.stage}: {report.note}"),
    )  # fmt: skip
    keep(out, digest, run, seconds | {"total": round(time.perf_counter() - start, 1)})
    return digest


def run_all(
    out: Path,
    plan: Plan,
    cohort: Cohort,
    arrays: Path,
    runs: int,
    processes: int,
    say: Callable[[str], None],
) -> Iterator[tuple[int, Run]]:
    """The runs 0 to runs - 1 as they are found or finished. Raises Stopped, LensError."""
    digests = {i: plan.digest(cohort.hash, i) for i in range(runs)}
    todo = []
    for i, digest in digests.items():
        kept = finished(out, digest)
        if kept is None:
            todo.append(i)
        else:
            say(f"run {i + 1}: kept from an earlier call")
            yield i, kept
    if not todo:
        return
    # Forked children of a process with threads can hang; fresh ones cannot.
    context = multiprocessing.get_context("spawn")
    channel = context.Queue()
    with ProcessPoolExecutor(
        min(processes, len(todo)), mp_context=context, initializer=_join, initargs=(channel,),
        max_tasks_per_child=1,
    ) as pool:  # fmt: skip
        waiting: dict[Future[str], int] = {
            pool.submit(_in_process, out, plan, cohort.root, arrays, i): i for i in todo
        }
        try:
            while waiting:
                _listen(channel, say)
                for future in [f for f in waiting if f.done()]:
                    i = waiting.pop(future)
                    run = finished(out, future.result())
                    if run is None:
                        raise InputError(
                            "a finished run cannot be read", field="out", found=f"run {i + 1}",
                            expected=str(out / "runs"),
                        )  # fmt: skip
                    say(f"run {i + 1}: done")
                    yield i, run
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            for future in waiting:
                future.cancel()


_CHANNEL: list[Any] = []  # of a child process: where it says how far it is


def _join(channel: Any) -> None:
    _CHANNEL[:] = [channel]


def _listen(channel: Any, say: Callable[[str], None]) -> None:
    """Pass on what the processes say, for half a second."""
    until = time.monotonic() + 0.5
    while (left := until - time.monotonic()) > 0:
        try:
            run, note = channel.get(timeout=left)
            say(f"run {run + 1}: {note}")
        except queue.Empty:
            return


def _in_process(out: Path, plan: Plan, cohort: Path, arrays: Path, i: int) -> str:
    from services.training.fit import Interrupted

    said = [0.0]

    def tell(run: int, note: str) -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)  # killed: nobody waits for this run, and its checkpoints are on disk
        if time.monotonic() - said[0] > 30:
            said[0] = time.monotonic()
            _CHANNEL[0].put((run, note))

    try:
        return run_one(out, plan, cohort, arrays, i, tell)
    except Interrupted:
        raise KeyboardInterrupt from None
