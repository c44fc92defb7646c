"""Messages of the HTTP API: predictions, jobs, problems."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from wire.explanation import Caution, ClassProbability, OutOfDistribution, Status


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class PredictionResponse(_Message):
    """Answer of POST /v1/predictions. One deterministic pass; explanations average many."""

    bundle: str
    precision: str = Field("fp32", description="What computed it: fp32, or a variant's kind.")
    synthetic: bool
    class_id: str
    label: str
    probabilities: list[ClassProbability] = Field(description="Highest first.")
    logits: list[float] = Field(description="Uncalibrated, in the bundle's class order.")
    activations: dict[str, list[float]] = Field(
        default_factory=dict, description="Pooled taps that the request asked for."
    )
    out_of_distribution: OutOfDistribution
    cautions: list[Caution]


class JobState(StrEnum):
    """queued -> running -> done | failed; queued or running -> cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


def _statuses(value: Any) -> Any:
    """A form field or a query has text: 'washout=present,central_scar=absent', or JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if len({name.strip() for name, _, _ in pairs}) < len(pairs):
        raise ValueError("a feature stands twice")
    return {name.strip(): status.strip() for name, _, status in pairs}


class ExplanationParameters(_Message):
    """What a caller may choose. The job id is a hash of these, the lesion and the bundle."""

    passes: int = Field(25, ge=1, le=200, description="Stochastic passes to average over.")
    seed: int = Field(0, ge=0, lt=2**31)
    map_steps: int = Field(
        8,
        ge=1,
        le=256,
        description="Integrated-gradient steps of a class map; a feature's map takes a quarter.",
    )
    map_method: str = Field(
        "default",
        pattern="^[a-z][a-z0-9_]{0,39}$",
        description="How maps are made, e.g. 'integrated_gradients', 'grad_cam'; 'default': the "
        "bundle's own choice for classes and for features.",
    )
    reader_features: Annotated[dict[str, Status], BeforeValidator(_statuses)] = Field(
        default_factory=dict,
        max_length=200,
        description="What a reader or a report says of features, for the consistency check. As "
        "text: 'washout=present,central_scar=absent'. A feature left out is not known.",
    )
    reader_source: Literal["reader", "report"] = Field(
        "reader", description="Where `reader_features` come from."
    )


class JobLinks(_Message):
    self: str
    events: str
    report: str
    maps: str


class JobStatus(_Message):
    """State of one explanation job. `result` is present when, and only when, it is done."""

    id: str
    state: JobState
    stage: str = Field("", description="What the worker is doing, in words.")
    progress: float = Field(0, ge=0, le=1)
    accepted_at: str = Field(description="RFC 3339, UTC.")
    finished_at: str | None = None
    seconds: float | None = Field(None, description="From acceptance to the final state.")
    error: Problem | None = None
    links: JobLinks
    result: dict[str, Any] | None = Field(None, description="The explanation document.")


class JobSummary(_Message):
    """One job of many: its state, and why where it failed."""

    id: str
    state: JobState
    error: Problem | None = None


class JobList(_Message):
    """Jobs that were asked for by id or by batch."""

    jobs: list[JobSummary]
    next: str | None = Field(
        None, description="Ask again with this as `after` for the rest of a long batch."
    )


class BatchAccepted(_Message):
    """Answer of POST /v1/explanations:batch: the jobs, in the order of the lesions."""

    batch: str
    bundle: str = Field(description="Hash of the bundle that all of them are computed with.")
    jobs: list[JobSummary]


class BatchStatus(_Message):
    """How far a batch is. It is finished when no job is queued or running."""

    batch: str
    jobs: int
    states: dict[JobState, int]
    finished: bool


class Problem(BaseModel):
    """RFC 9457 problem details, with the field, what was found and what was expected."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="URN of the error code, e.g. urn:lesionlens:problem:box_outside.")
    title: str
    status: int
    detail: str
    field: str | None = None
    found: str | None = None
    expected: str | None = None


JobStatus.model_rebuild()
JobSummary.model_rebuild()
