"""All benchmarks in a row: what is missing is said, what fails is named, the rest runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks.everything import STEPS, Step, run


def test_a_missing_step_is_said_and_a_failing_one_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = [
        Step("of_another_version", "nothing"),
        Step("report", "takes no --bundle", args=("--no-such-option",)),
        Step("probes", "runs", bundle=False, quick=("--rounds", "1", "--draws", "40",
                                                    "--loop-passes", "1")),
    ]  # fmt: skip
    assert run(steps, "no bundle", tmp_path, quick=True) == ["report"]
    said = capfd.readouterr().out
    assert "[1/3, 0 min] of_another_version: nothing: not in this version" in said
    assert (tmp_path / "probes.json").is_file()


def test_variants_come_before_the_record_that_repeats_them() -> None:
    names = [step.name for step in STEPS]
    assert names.index("variants") < names.index("predict")
    assert len(set(names)) == len(names)
    here = [step for step in STEPS if importlib.util.find_spec(step.module) is not None]
    assert {"cold", "codec", "predict", "overload", "scale"} <= {step.name for step in here}
