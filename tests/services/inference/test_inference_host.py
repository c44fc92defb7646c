"""Chunks: the same numbers, and room between them."""

from __future__ import annotations

import numpy as np
import pytest

from models.bundle.runtime import OnnxModel
from models.turns import make_way, taking_turns
from services.inference.host import GRADIENT_COST, ModelHost
from tests.models.bundle import tiny_onnx


@pytest.mark.parametrize("rows", [1, 4, 5, 11])
def test_chunks_change_no_number(host: ModelHost, rows: int) -> None:
    whole = OnnxModel(host.bundle)
    x = tiny_onnx.images(rows, 1)
    names = whole.outputs
    found = host.model.forward(x, names)
    for name, value in whole.forward(x, names).items():
        np.testing.assert_array_equal(found[name], value, strict=True)
    weights = {"fc": np.random.default_rng(0).normal(size=(rows, tiny_onnx.FC)).astype(np.float32)}
    differentiated = host.model.gradients(x, weights)
    for name, value in whole.gradients(x, weights).items():
        np.testing.assert_array_equal(differentiated[name], value, strict=True)


def test_it_makes_way_before_each_chunk(host: ModelHost) -> None:
    x = tiny_onnx.images(11, 1)
    weights = {"logits": np.ones((11, tiny_onnx.C), np.float32)}
    turns: list[int] = []
    with taking_turns(turns.append):
        host.model.forward(x, ["scores"])
        with taking_turns(None):  # a short call that was put in takes no turns itself
            host.model.forward(x, ["scores"])
        host.model.gradients(x, weights)
    host.model.forward(x, ["scores"])
    assert turns == [4, 4, 3, *(n * GRADIENT_COST for n in (4, 4, 3))]


def test_what_is_raised_in_a_turn_ends_the_call(host: ModelHost) -> None:
    def refuse(rows: int) -> None:
        raise TimeoutError

    with taking_turns(refuse), pytest.raises(TimeoutError):
        host.model.forward(tiny_onnx.images(11, 1), ["scores"])
    make_way(1)  # outside, nobody takes turns
