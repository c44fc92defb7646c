"""Where a long computation makes way: between its chunks it lets whoever runs it put others in.

    scheduler: with taking_turns(hook): call()
    a loop over chunks: make_way(rows)   ->  hook(rows), in the same thread

Outside a scheduler nobody takes turns and nothing happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Hook = Callable[[int], None]
_here = threading.local()


@contextmanager
def taking_turns(hook: Hook | None) -> Iterator[None]:
    """Within, `make_way` of this thread calls the hook; with None it does nothing."""
    before = getattr(_here, "hook", None)
    _here.hook = hook
    try:
        yield
    finally:
        _here.hook = before


def make_way(rows: int) -> None:
    """A chunk worth this many rows is about to run. Raises what ends the call: deadline, leave."""
    hook = getattr(_here, "hook", None)
    if hook is not None:
        hook(rows)
