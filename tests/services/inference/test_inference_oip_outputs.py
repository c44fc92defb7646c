"""The best classes of each row, in the protocol's words."""

from __future__ import annotations

import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor

from services.inference.oip_outputs import class_count, given
from services.inference.oip_tensors import CodecError

ROWS = np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]], np.float32)


def test_best_first_and_ties_by_index() -> None:
    found = given("scores", ROWS, classes=2, labels=("a", "b", "ü"))
    assert (found.datatype, found.shape) == ("BYTES", (2, 2))
    expected = ["0.700000:1:b", "0.200000:2:ü", "0.500000:0:a", "0.500000:2:ü"]
    assert found.listed() == expected
    again = deserialize_bytes_tensor(found.raw.tobytes())
    assert [word.decode() for word in again] == expected


def test_no_more_than_there_are_and_no_labels_elsewhere() -> None:
    found = given("fc", ROWS, classes=9, labels=("a", "b", "c"))
    assert found.shape == (2, 3)
    assert found.listed()[0] == "0.700000:1"


def test_numbers_otherwise() -> None:
    found = given("scores", ROWS, datatype="FP16")
    assert (found.datatype, found.shape, found.raw.dtype) == ("FP16", (2, 3), np.float16)
    assert given("scores", ROWS).listed() == ROWS.ravel().tolist()


@pytest.mark.parametrize("wrong", [-1, 1.0, "1", True, None])
def test_what_is_no_count(wrong: object) -> None:
    with pytest.raises(CodecError):
        class_count("scores", wrong)
