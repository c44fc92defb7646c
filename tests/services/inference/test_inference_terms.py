"""Parameters of a request as terms of its run."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from services.inference.host import ModelHost
from services.inference.lanes import FIRST, NORMAL, Lane, Work
from services.inference.oip_codec import CodecError
from services.inference.served import SERVED
from services.inference.terms import work_of
from tests.models.bundle import tiny_onnx


def terms(host: ModelHost, rows: int = 1, model: str = "classifier", **parameters: Any) -> Work:
    inputs = {"x": tiny_onnx.images(rows, 1)}
    return work_of(SERVED[model], host, inputs, ["scores"], parameters)


def test_the_defaults(host: ModelHost) -> None:
    work = terms(host)
    assert (work.lane, work.rows, work.priority, work.deadline) == (Lane.SHORT, 1, NORMAL, None)
    assert terms(host, timeout=0, priority=0).deadline is None
    assert terms(host, priority=0).priority == NORMAL
    assert terms(host, priority=1).priority == FIRST


def test_timeout_is_in_microseconds_and_the_earlier_deadline_counts(host: ModelHost) -> None:
    before = time.monotonic()
    deadline = terms(host, timeout=5_000_000).deadline
    assert deadline is not None
    assert before + 5 <= deadline <= time.monotonic() + 5
    inputs = {"x": tiny_onnx.images(1, 1)}
    early, late = before + 1, before + 100
    for given, expected in ((early, early), (late, pytest.approx(before + 5, abs=1))):
        work = work_of(
            SERVED["classifier"], host, inputs, ["scores"], {"timeout": 5_000_000}, given
        )
        assert work.deadline == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"timeout": -1},
        {"timeout": "soon"},
        {"timeout": 1.5},
        {"timeout": True},
        {"priority": 4},
        {"priority": -1},
        {"priority": "high"},
    ],
)
def test_what_is_no_term_is_refused_by_name(host: ModelHost, parameters: dict[str, Any]) -> None:
    with pytest.raises(CodecError) as refused:
        terms(host, **parameters)
    assert refused.value.field in parameters
    assert refused.value.code == "bad_parameter"
    assert refused.value.status == 400


def test_what_is_short_and_what_may_share_a_run(host: ModelHost) -> None:
    assert terms(host).together is not None
    assert terms(host, timeout=9, priority=1, binary_data_output=True).together is not None
    assert terms(host, alone=True).together is None
    assert terms(host, anything_else=1).together is None
    few = terms(host, rows=host.chunk)
    assert few.lane is Lane.SHORT
    assert few.together is None
    assert terms(host, rows=host.chunk + 1).lane is Lane.LONG
    assert terms(host, model="gradients").lane is Lane.LONG
    assert terms(host, model="gradients").together is None


def test_only_like_requests_share_a_run(host: ModelHost) -> None:
    inputs = {"x": tiny_onnx.images(1, 1)}
    keys = []
    for names in (["scores"], ["scores"], ["fc"], ["scores", "fc"]):
        work = work_of(SERVED["classifier"], host, inputs, names, {})
        assert work.together is not None
        keys.append(work.together.key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    again = ModelHost(host.bundle, threads=1, chunk=4)
    other = work_of(SERVED["classifier"], again, inputs, ["scores"], {})
    assert other.together is not None
    assert other.together.key != keys[0]


def test_a_shared_run_gives_what_runs_alone_give(host: ModelHost) -> None:
    work = terms(host)
    assert work.together is not None
    x = tiny_onnx.images(3, 7)
    found = work.together.call(x)["scores"]
    np.testing.assert_allclose(found, tiny_onnx.expected_outputs(x)["scores"], atol=1e-5)
