"""On what terms a request is run: its deadline, its priority, whether it may share a run.

Parameters of an inference request, as in Triton's schedule policy extension, and one of our own:
    timeout   microseconds from when the body was read; 0 or absent: none
    priority  1 first, 2 the default (also 0), 3 last
    alone     true: never in one run with rows of others
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.inference.host import ModelHost
from services.inference.lanes import LAST, NORMAL, Lane, Rows, Together, Work
from services.inference.oip_codec import CodecError
from services.inference.served import Served, Tensors

_OURS = {"timeout", "priority", "binary_data_output"}  # anything else may change the numbers


def work_of(
    served: Served,
    host: ModelHost,
    inputs: Tensors,
    names: Sequence[str],
    parameters: Mapping[str, Any],
    deadline: float | None = None,
) -> Work:
    """What the scheduler has to know of a request, its inputs checked before. Raises CodecError.

    deadline: the transport's own, in seconds of time.monotonic(); the earlier one counts.
    """
    timeout = _whole(parameters, "timeout")
    if timeout:
        asked = time.monotonic() + timeout / 1e6
        deadline = asked if deadline is None else min(asked, deadline)
    priority = _whole(parameters, "priority") or NORMAL
    if priority > LAST:
        raise CodecError(
            "no such priority",
            code="bad_parameter",
            field="priority",
            found=str(priority)[:20],
            expected="1 (first), 2 (the default, also 0) or 3 (last)",
        )
    rows = max((len(value) for value in inputs.values() if value.ndim), default=1)
    short = served.short and rows <= host.chunk
    together = None
    if short and rows == 1 and set(parameters) <= _OURS:
        call = partial(_run, served, host, names)
        together = Together((id(host), served.name, tuple(names)), inputs["x"], call)
    return Work(Lane.SHORT if short else Lane.LONG, rows, priority, deadline, together)


def _run(served: Served, host: ModelHost, names: Sequence[str], x: NDArray[np.float32]) -> Rows:
    return served.run(host, {"x": x}, names, {})


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**63:
        raise CodecError(
            "not a whole number",
            code="bad_parameter",
            field=name,
            found=str(value)[:20],
            expected="0 or more",
        )
    return value
