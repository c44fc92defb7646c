"""Turns are a thread's own, nest, and are nothing outside."""

from __future__ import annotations

import threading

import pytest

from models.turns import make_way, taking_turns


def test_turns_nest_and_end() -> None:
    outer: list[int] = []
    inner: list[int] = []
    make_way(1)
    with taking_turns(outer.append):
        make_way(2)
        with taking_turns(inner.append):
            make_way(3)
        with taking_turns(None):
            make_way(4)
        make_way(5)
    make_way(6)
    assert (outer, inner) == ([2, 5], [3])


def test_a_failure_inside_leaves_no_hook_behind() -> None:
    seen: list[int] = []
    with pytest.raises(KeyError), taking_turns(seen.append):
        raise KeyError
    make_way(1)
    assert seen == []


def test_other_threads_take_no_part() -> None:
    seen: list[int] = []
    with taking_turns(seen.append):
        thread = threading.Thread(target=make_way, args=(7,))
        thread.start()
        thread.join()
    assert seen == []
