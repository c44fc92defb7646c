"""The record of a bundle's variant: a faster execution of its classifier, measured beforehand.

A variant is a folder in its bundle, `variants/<kind>/`:

    variant.json       this message; `hash` is the content address of everything else
    classifier.onnx    the quantised classifier; kinds that run the bundle's own file have none

`parent` is the bundle's hash. A refused variant keeps its record, so that one can see why, and
nothing that could be run.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

VARIANT_SCHEMA: Final = 1


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Budget(_Message):
    """What a variant may cost, held against point estimates on validation lesions."""

    accuracy_loss: float = Field(0.005, ge=0, description="Most that class accuracy may fall.")
    probe_auroc_loss: float = Field(0.01, ge=0, description="The same of probes' macro AUROC.")
    map_correlation: float = Field(
        0.98, ge=-1, le=1, description="Least mean correlation of class maps with those of fp32."
    )


class Estimate(_Message):
    """A figure of the variant beside the same of fp32, on the same lesions.

    loss: fp32 less variant. ci: its paired 95 % bootstrap interval over lesions.
    """

    fp32: float
    variant: float
    loss: float
    ci: tuple[float, float] | None = None


class MapAgreement(_Message):
    """Pearson's correlation of delivered class maps with those of fp32, over lesions.

    drawn: lesions whose map differs, since the variant names another class; all other maps are the
    same by construction (gradients stay on the fp32 graph) and count as 1.
    """

    mean: float
    least: float
    drawn: int


class Measured(_Message):
    """On the validation split; the test split is never looked at."""

    cohort: str
    split: Literal["validation"] = "validation"
    n: int
    passes: int = Field(description="Stochastic passes behind what the probes read.")
    accuracy: Estimate
    probe_auroc: Estimate | None = Field(None, description="None: no feature is labelled.")
    maps: MapAgreement
    same_class: float = Field(description="Share of lesions given the same class as by fp32.")
    largest_difference: float = Field(description="Of a calibrated probability, over all lesions.")
    outside: tuple[int, int] = Field(
        description="Lesions called out of distribution, by fp32 and by the variant."
    )


class Speed(_Message):
    """CPU milliseconds a row, batch 1, one thread, rounds interleaved with fp32 on onnxruntime.

    speedup: fp32 over variant, round by round: lowest, median, highest.
    """

    fp32_ms: float
    variant_ms: float
    speedup: tuple[float, float, float]
    rounds: int


class VariantRecord(_Message):
    """How a variant was made, what it costs and whether it may serve."""

    schema_version: Literal[1] = VARIANT_SCHEMA
    kind: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,39}$")
    hash: str = Field(description="'v-' and 20 hex digits over every other field.")
    parent: str = Field(description="Hash of the bundle whose classifier this is.")
    accepted: bool
    reasons: list[str] = Field(description="Why it was refused, a line each; none if accepted.")
    runtime: str = Field(description="What it was measured on, e.g. 'openvino 2026.4.1 cpu'.")
    machine: str
    calibration: dict[str, float | int | str] = Field(
        description="How integers were calibrated; empty for kinds that are not quantised."
    )
    tolerance: dict[str, float] = Field(
        description="Output -> largest error on the bundle's stored sample at which it may serve."
    )
    budget: Budget
    measured: Measured
    speed: Speed
    files: dict[str, str] = Field(description="Relative path -> sha256, hex.")
