"""The history of promotions: append-only, serialised, and an answer for every moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import LensError, Unavailable
from services.common import registry as module
from services.common.registry import (
    Event,
    Registry,
    earlier,
    production_at,
    production_between,
    states,
)

NAMES = ["b-a", "b-b", "b-c", "b-d"]


@pytest.fixture
def registry() -> Registry:
    return Registry("sqlite://")


def test_promote_replaces_and_archives(registry: Registry) -> None:
    assert registry.production() is None
    first = registry.promote("b-a", "ann", "first")
    second = registry.promote("b-b", "bob")
    assert (first, second) == tuple(registry.history())
    assert first is not None
    assert second is not None
    assert (first.previous, first.production, first.who, first.note) == (
        None,
        "b-a",
        "ann",
        "first",
    )
    assert (second.previous, second.production) == ("b-a", "b-b")
    assert registry.production() == "b-b"
    assert states(registry.history(), NAMES) == {
        "b-a": "archived",
        "b-b": "production",
        "b-c": "candidate",
        "b-d": "candidate",
    }
    assert registry.promote("b-b", "ann") is None  # there already: nothing is written
    assert len(registry.history()) == 2


def test_rollbacks_go_back_one_promotion_each(registry: Registry) -> None:
    with pytest.raises(LensError) as refused:
        registry.rollback("ann")
    assert refused.value.code == "nothing_before"
    for name in ("b-a", "b-b", "b-c"):
        registry.promote(name, "ann")
    assert registry.rollback("ann", "worse").production == "b-b"
    assert registry.rollback("ann").production == "b-a"
    with pytest.raises(LensError):
        registry.rollback("ann")
    registry.promote("b-d", "ann")
    assert registry.rollback("ann").production == "b-a"
    assert [e.action for e in registry.history()] == [
        *["promote"] * 3, *["rollback"] * 2, "promote", "rollback",
    ]  # fmt: skip


def test_what_was_set_aside_is_not_brought_back(registry: Registry) -> None:
    for name in ("b-a", "b-b", "b-c"):
        registry.promote(name, "ann")
    with pytest.raises(LensError) as refused:
        registry.archive("b-c", "ann")
    assert refused.value.code == "in_production"
    assert registry.archive("b-b", "ann") is not None
    assert registry.archive("b-b", "ann") is None
    assert registry.archive("b-d", "ann") is not None
    assert states(registry.history(), ["b-d"]) == {"b-d": "archived"}
    assert registry.production() == "b-c"
    assert registry.rollback("ann").production == "b-a"
    assert registry.promote("b-b", "ann") is not None  # a person may still decide so


def test_what_was_in_production_when(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    for at, name in ((100.0, "b-a"), (200.0, "b-b"), (150.0, "b-c")):  # a clock that went back
        monkeypatch.setattr(module.time, "time", lambda at=at: at)
        registry.promote(name, "ann")
    registry.archive("b-d", "ann")
    history = registry.history()
    assert [e.at for e in history] == [100, 200, 200, 200]

    def at(when: float) -> str | None:
        event = production_at(history, when)
        return event.production if event else None

    assert [at(t) for t in (0, 99.9, 100, 199.9, 200, 1e9)] == [
        None, None, "b-a", "b-a", "b-c", "b-c",
    ]  # fmt: skip
    between = [
        [e.production for e in production_between(history, *s)] for s in ((0, 100), (0, 101))
    ]
    assert between == [[], ["b-a"]]
    assert [e.production for e in production_between(history, 150, 300)] == ["b-a", "b-b", "b-c"]
    assert [e.production for e in production_between(history, 300, 400)] == ["b-c"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["promote", "rollback", "archive"]), st.sampled_from(NAMES)),
        max_size=12,
    )
)
def test_any_sequence_keeps_the_invariants(steps: list[tuple[str, str]]) -> None:
    registry = Registry("sqlite://")
    past: list[Event] = []
    refusals: set[str] = set()
    for action, name in steps:
        target = earlier(past)
        try:
            if action == "promote":
                registry.promote(name, "x")
            elif action == "archive":
                registry.archive(name, "x")
            else:
                assert registry.rollback("x").production == target
        except LensError as error:
            refusals.add(error.code)
        history = registry.history()
        assert history[: len(past)] == past  # nothing that was written has changed
        past = history
    assert refusals <= {"nothing_before", "in_production"}
    for number, event in enumerate(past, 1):
        assert event.number == number
        before = past[number - 2].production if number > 1 else None
        assert event.previous == before
        assert event.production == (before if event.action == "archive" else event.bundle)
        assert event.production != before or event.action == "archive"
    found = states(past, NAMES)
    assert registry.production() == (past[-1].production if past else None)
    assert [n for n, s in found.items() if s == "production"] == [
        n for n in NAMES if n == registry.production()
    ]
    registry.close()


@pytest.mark.parametrize("workers", [4])
def test_promotions_at_once_are_written_one_after_the_other(tmp_path: Path, workers: int) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"

    def work(worker: int) -> None:
        registry = Registry(url)  # as another process has it
        for n in range(5):
            registry.promote(f"b-{worker}-{n}", f"worker {worker}")
        registry.close()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    history = Registry(url).history()
    assert [e.number for e in history] == list(range(1, 5 * workers + 1))
    assert sorted(e.bundle for e in history) == sorted(
        f"b-{w}-{n}" for w in range(workers) for n in range(5)
    )
    for before, after in pairwise(history):
        assert after.previous == before.production
        assert after.at >= before.at


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        Registry(f"sqlite:///{tmp_path / 'no' / 'folder' / 'ledger.sqlite'}")


def test_ledger_and_registry_share_one_database(tmp_path: Path) -> None:
    from services.common.ledger import Ledger

    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger, registry = Ledger(url), Registry(url)
    registry.promote("b-a", "ann")
    ledger.add("exp-1", lesion="les-1", bundle="b-a", parameters={})
    assert Registry(url).production() == "b-a"
    assert Ledger(url).get("exp-1") is not None
