"""`lesionlens explain --cohort` without a lesion: in real processes, killed and started again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from models.bundle.read import read_bundle
from models.bundle.runtime import load_model
from models.cohort.format import read_cohort
from models.cohort.load import load_lesion
from models.errors import InputError, LensError
from models.reasons.explain import document_bytes, explain, maps_from_bytes
from services.cli import bulk_here
from services.cli.bulk import Wish, explain_cohort
from services.cli.bulk_folder import EXPLANATIONS, place
from services.cli.bulk_manifest import NAME
from services.cli.bulk_worker import Order
from services.cli.main import lesionlens
from tests.support import lesions
from wire.api import ExplanationParameters
from wire.cohort import CohortLesion

QUICK = ExplanationParameters(passes=2, map_steps=2)
WORDS = ["--passes", "2", "--map-steps", "2"]


@pytest.fixture(scope="module")
def few(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of eight sound lesions and two faulty ones, in test."""
    root = tmp_path_factory.mktemp("few")

    def spoilt(number: int, lesion: CohortLesion) -> CohortLesion:
        if number == 6:
            torn = root / lesion.image["arterial"]
            torn.write_bytes(torn.read_bytes()[:500])
        away = {phase: [[900, 900, 900], [910, 910, 910]] for phase in lesion.voi}
        return lesion.model_copy(update={"voi": away}) if number == 3 else lesion

    lesions.part_of(tiny_cohort, root, 10, spoilt)
    return root


@pytest.fixture(scope="module")
def sound(few: Path) -> list[CohortLesion]:
    return [one for i, one in enumerate(read_cohort(few).lesions("test")) if i not in (3, 6)]


def wish(few: Path, bundle: Path, out: Path, **more: object) -> Wish:
    return Wish(few, out, QUICK, bundle=str(bundle), processes=2, **more)  # type: ignore[arg-type]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def manifest(out: Path) -> list[dict[str, object]]:
    return [json.loads(raw) for raw in (out / NAME).read_text("utf-8").splitlines()[1:]]


def test_every_document_has_the_bytes_of_a_single_one_and_faults_stop_nobody(
    few: Path, tiny_bundle: Path, sound: list[CohortLesion], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    tally = explain_cohort(
        wish(few, tiny_bundle, tmp_path, maps=True), lambda *now: told.append(now)
    )
    assert (tally.total, tally.done, tally.failed, tally.before) == (10, 8, 2, 0)
    assert told == [(n, 10) for n in range(11)]
    bundle = read_bundle(tiny_bundle)
    model, cohort = load_model(bundle, 1), read_cohort(few)
    for one in sound[:3]:
        lesion = load_lesion(cohort, one, bundle.manifest.phases, bundle.preprocessing)
        single = explain(lesion, bundle, model, QUICK)
        there = (tmp_path / place(EXPLANATIONS, one.lesion_id)).read_bytes()
        assert there == document_bytes(single.document)
        maps = maps_from_bytes((tmp_path / f"maps/{one.lesion_id}.npz").read_bytes())
        assert sorted(maps) == sorted(single.maps)
        assert all(np.array_equal(maps[name], single.maps[name]) for name in maps)
    assert len(list((tmp_path / EXPLANATIONS).iterdir())) == 8

    table = rows(tmp_path)
    assert [row["lesion"] for row in table] == [
        one.lesion_id for one in read_cohort(few).lesions("test")
    ]
    for row in table:
        if row["state"] == "done":
            document = json.loads((tmp_path / row["document"]).read_bytes())
            assert row["class"] == document["prediction"]["class_id"]
            found = [f["id"] for f in document["features"] if f["found"]]
            assert row["features_found"] == "; ".join(found)
            assert (row["review_advised"] == "yes") == document["review"]["flagged"]
    assert "box" in table[3]["error"] or "voi" in table[3]["error"]
    assert "image.arterial" in table[6]["error"]
    assert [table[i]["state"] for i in (3, 6)] == ["failed", "failed"]


def test_what_is_done_is_not_done_again_and_what_failed_is(
    few: Path, tiny_bundle: Path, sound: list[CohortLesion], tmp_path: Path
) -> None:
    first = explain_cohort(wish(few, tiny_bundle, tmp_path, limit=4))
    assert (first.done, first.failed) == (3, 1)
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / EXPLANATIONS).iterdir()}
    gone, *kept = sorted(stamps)
    gone.unlink()
    second = explain_cohort(wish(few, tiny_bundle, tmp_path, limit=5))
    assert (second.before, second.done, second.failed) == (2, 2, 1)
    assert all(f.stat().st_mtime_ns == stamps[f] for f in kept)
    assert gone.exists()


def test_another_bundle_or_other_parameters_are_refused(
    few: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    explain_cohort(wish(few, tiny_bundle, tmp_path, limit=1))
    other = Wish(few, tmp_path, ExplanationParameters(passes=3), bundle=str(tiny_bundle))
    with pytest.raises(InputError, match="another way") as refused:
        explain_cohort(other)
    assert "passes" in str(refused.value.found)


def command(few: Path, bundle: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "services.cli.main", "explain", "--cohort", str(few),
        "--bundle", str(bundle), "--out", str(out), "--processes", "2", *more,
    ]  # fmt: skip


@pytest.mark.system
def test_killed_and_started_again_it_goes_on(
    few: Path, tiny_bundle: Path, sound: list[CohortLesion], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # Enough work a lesion that the kill comes in the middle of one.
    words = command(few, tiny_bundle, out, "--passes", "40", "--map-steps", "24")
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not (out / NAME).exists() or len(manifest_lines(out)) < 3:
        assert run.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    children = psutil.Process(run.pid).children(recursive=True)
    assert children
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive  # nobody works on without the one that listens

    before = {line["id"] for line in map(json.loads, manifest_lines(out)[1:])}
    assert before
    torn = b'{"id": "' + sound[0].lesion_id.encode()
    with (out / NAME).open("ab") as stream:
        stream.write(torn)
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=400)
    assert again.returncode == 1, again.stderr  # two lesions are faulty
    assert again.stderr.count("failed: lesion") == 2

    lines = manifest(out)
    done = [line["id"] for line in lines if line["state"] == "done"]
    assert sorted(done) == sorted(one.lesion_id for one in sound)  # each one once
    assert not list(out.rglob("*.part"))
    third = subprocess.run(words, capture_output=True, text=True, check=False, timeout=400)
    assert "0 explained" in third.stdout


def manifest_lines(out: Path) -> list[bytes]:
    """Whole lines, while somebody may be writing."""
    return (out / NAME).read_bytes().split(b"\n")[:-1]


def test_a_process_that_dies_costs_one_more_try(
    few: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    done = []
    killed = 0
    for one in bulk_here.explain_here(
        read_cohort(few).lesions("test"), order(few, tiny_bundle, tmp_path), 1
    ):
        done.append(one.line)
        if killed < 1:
            killed += 1
            for child in psutil.Process().children():
                if "bulk_worker" in " ".join(child.cmdline()):
                    child.kill()
    assert killed == 1
    assert len(done) == len({line.id for line in done}) == 10
    assert sum(line.state == "done" for line in done) == 8


def test_what_kills_its_process_each_time_is_given_up(
    few: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = (one.lesion_id for one in read_cohort(few).lesions("test")[:2])
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "sitecustomize.py").write_text(
        "import os, signal\n"
        "import models.cohort.load as load\n"
        "real = load.load_lesion\n"
        "def fatal(cohort, lesion, *rest):\n"
        f"    if lesion.lesion_id == {bad!r}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(cohort, lesion, *rest)\n"
        "load.load_lesion = fatal\n"
    )
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(poison), *sys.path[:1], inherited]))
    found = {
        one.line.id: one.line
        for one in bulk_here.explain_here(
            read_cohort(few).lesions("test")[:2], order(few, tiny_bundle, tmp_path), 1
        )
    }
    assert found[bad].state == "failed"
    assert "ended 2 times" in str(found[bad].error)
    assert found[good].state == "done"


def test_a_process_that_cannot_start_ends_it_all(
    few: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LensError, match="could not start"):
        list(
            bulk_here.explain_here(
                read_cohort(few).lesions("test"), order(few, tmp_path / "nothing", tmp_path), 2
            )
        )
    assert "Traceback" not in capfd.readouterr().err


def order(few: Path, bundle: Path, out: Path) -> Order:
    (out / EXPLANATIONS).mkdir(exist_ok=True)
    file = read_cohort(few).file.model_copy(update={"test": []})
    return Order(
        bundle=bundle, root=few, cohort=file, out=out, kinds=[EXPLANATIONS], parameters=QUICK
    )


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--box", "1,2,3,4,5,6"], "box"),
        (["--json"], "json"),
        (["--reader", "washout=present"], "reader"),
        (["--lesion", "x", "--split", "test"], "split"),
        (["--server", "http://127.0.0.1:9", "--processes", "2"], "processes"),
        (["--split", "tset", "--out", "o"], "split"),
        (["--class", "nothing", "--out", "o"], "class"),
        ([], "out"),
    ],
)
def test_options_that_do_not_fit_are_named(
    few: Path, tiny_bundle: Path, words: list[str], field: str
) -> None:
    bundle = [] if "--server" in words else ["--bundle", str(tiny_bundle)]
    with pytest.raises(InputError) as refused:
        lesionlens.main(
            ["explain", "--cohort", str(few), *bundle, *WORDS, *words], standalone_mode=False
        )
    assert refused.value.field == field
