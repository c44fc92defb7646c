"""Plan and digests of the evaluation: what is done again, and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.errors import LensError
from services.cli import eval_plan
from services.cli.eval import evaluate
from services.cli.eval_parts import MAKE, finished
from services.cli.eval_plan import KINDS, NETS, QUICK, Keys, Plan, needs


def test_parts_come_after_what_they_need() -> None:
    for plan in (Plan(), QUICK):
        before: set[str] = set()
        for name in plan.parts:
            assert set(needs(name)) <= before
            before.add(name)
        assert len(plan.parts) == len(set(plan.parts))
        assert {name.partition("-")[0] for name in plan.parts} == set(KINDS) == set(MAKE)
    assert {"curve-125", "curve-250", "curve-1000", "curve-2000"} < set(Plan().parts)
    assert "curve-500" not in Plan().parts  # the default at the main size is that point


ALL = set(Plan().parts)
SIDE = {f"net-{name}" for name in NETS}
SPOILED = {"net-shortcut", "net-label_noise", "net-concept"}
SCIENCE = {"truth", "stress", "relevance", "probes", "errors", "maps"}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"cohort_seed": 5}, ALL),
        ({"seed": 1}, ALL - {"cohort", "arrays"}),
        ({"main": 250}, {"default", "ood", "wang2019", *SIDE, *SCIENCE}),
        ({"side_steps": 20}, {*SPOILED, "stress", "probes", "errors"}),
        ({"real": 10}, {"ood"}),
        ({"truth": 10}, {"truth", "relevance"}),
        ({"stress": 10}, {"stress", "errors"}),
        ({"mapped": 3}, {"maps"}),
        ({"labellings": 2}, {"probes", "relevance"}),
        ({"draws": 10}, {"relevance", "probes", "errors", "maps"}),
    ],
)
def test_a_change_reaches_the_parts_that_depend_on_it(
    change: dict[str, int], parts: set[str]
) -> None:
    before, after = Keys.of(Plan()), Keys.of(Plan().model_copy(update=change))
    both = before.parts.keys() & after.parts.keys()
    assert {name for name in both if before.parts[name] != after.parts[name]} == parts & both


def test_every_source_of_a_part_is_there() -> None:
    """A digest of a file that was moved would never change again."""
    named = [source for kind in KINDS.values() for source in kind.sources]
    named += [*eval_plan._IMAGE, *eval_plan._FIT]
    assert [source for source in named if not (eval_plan._ROOT / source).exists()] == []


def test_comments_and_layout_do_not_change_the_code_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_plan, "_ROOT", tmp_path)
    versions = []
    for text in (
        'def f(x):\n    """Twice."""\n    return 2 * x\n',
        "def f(x):\n    '''Doubled.'''\n    # why\n    return (2 * x)\n",
        'def f(x):\n    """Twice."""\n    return 3 * x\n',
    ):
        (tmp_path / "a.py").write_text(text, "utf-8")
        eval_plan.code.cache_clear()
        versions.append(eval_plan.code("a.py"))
    eval_plan.code.cache_clear()
    assert versions[0] == versions[1] != versions[2]


def test_a_part_counts_as_finished_only_with_its_digest(tmp_path: Path) -> None:
    keys = Keys.of(QUICK)
    place = tmp_path / "parts" / "wang2019.json"
    place.parent.mkdir()
    assert finished(tmp_path, QUICK, keys, "wang2019") is None
    place.write_text("{", "utf-8")
    assert finished(tmp_path, QUICK, keys, "wang2019") is None
    place.write_text(json.dumps({"digest": "another"}), "utf-8")
    assert finished(tmp_path, QUICK, keys, "wang2019") is None
    place.write_text(json.dumps({"digest": keys.parts["wang2019"], "seconds": 1}), "utf-8")
    assert finished(tmp_path, QUICK, keys, "wang2019") == {
        "digest": keys.parts["wang2019"],
        "seconds": 1,
    }
    # A cohort whose folder is gone is made again.
    (tmp_path / "parts" / "cohort.json").write_text(
        json.dumps({"digest": keys.parts["cohort"]}), "utf-8"
    )
    assert finished(tmp_path, QUICK, keys, "cohort") is None


def test_a_bundle_without_its_cohort_is_refused() -> None:
    done = CliRunner().invoke(evaluate, ["--bundle", "x"])
    assert isinstance(done.exception, LensError)
    assert "--cohort FOLDER beside --bundle" in done.exception.line
