"""The explanation document: the one thing that CLI, API, report and viewers read.

Numbers are rounded before they are written, so that the same lesion, bundle and parameters give
the same bytes wherever they were computed.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = "1.0"


def _empty(values: list[str]) -> bool:
    return not values


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ClassProbability(_Message):
    """One class of the bundle with its temperature-calibrated probability."""

    id: str
    label: str
    probability: float = Field(ge=0, le=1)


class Prediction(_Message):
    """What the network says, after temperature calibration, averaged over stochastic passes."""

    class_id: str
    label: str
    probabilities: list[ClassProbability] = Field(description="Highest first.")
    pass_agreement: float = Field(
        ge=0, le=1, description="Share of stochastic passes whose top class is the predicted one."
    )


class DetectionQuality(_Message):
    """How well the bundle's probe detects the feature, on lesions that it did not learn from."""

    auroc: float | None = Field(description="Null where one of the two groups was empty.")
    ci: tuple[float, float] | None = Field(description="95 % interval, bootstrap over lesions.")
    n_present: int
    n_absent: int
    split: str = Field(description="The split that it was measured on, e.g. 'validation'.")


class Influence(_Message):
    """Influence of the feature's activations on the predicted class, in (centred) logits.

    First-order form: the directional derivative of the class's centred logit along the probe's
    step from 'absent' to 'present', averaged over probe taps and passes. Positive speaks for the
    class.
    """

    value: float
    ci: tuple[float, float] | None = Field(
        description="95 % interval of the mean over passes; null for one pass."
    )
    form: Literal["first_order"] = "first_order"


class FeatureFinding(_Message):
    """One radiological feature of the vocabulary: is it found, how sure, how much does it weigh?"""

    id: str
    label: str
    found: bool = Field(description="At or above the threshold, and assessable.")
    probability: float = Field(ge=0, le=1, description="Calibrated leave-one-lesion-out.")
    threshold: float = Field(ge=0, le=1, description="Operating point; found means at or above it.")
    probe: str = Field(description="The probe that decided: 'gaussian' or 'logistic'.")
    scores: dict[str, float] = Field(
        description="Score of every probe before calibration: log density ratio (nats), log-odds."
    )
    influence: Influence
    quality: DetectionQuality
    typical_of: list[str] = Field(description="Class ids that the feature is typical of.")
    missing_phases: list[str] = Field(
        default_factory=list,
        exclude_if=_empty,
        description="Phases that the feature is judged on and that were not acquired: the finding "
        "is less reliable. Left out where there are none.",
    )
    assessable: bool = Field(
        default=True,
        exclude_if=bool,
        description="False where none of the phases that it is judged on was acquired: it is not "
        "called found, whatever the probability. Left out where it is true.",
    )


class SimilarLesion(_Message):
    """A training lesion near this one in activation space."""

    lesion_id: str
    class_id: str
    label: str
    similarity: float = Field(description="Cosine of the standardised activations, -1 to 1.")
    features: list[str] = Field(description="Ids of the features labelled present on it, if any.")


class SaliencyMap(_Message):
    """One map a phase on the lesion's canonical grid; the voxels are in the maps file beside."""

    name: str = Field(description="Key in the maps file, e.g. 'class/hcc'.")
    target: str = Field(description="Class or feature id.")
    method: str = Field(description="e.g. 'integrated_gradients'.")
    max_abs: float = Field(description="Largest absolute value over the phases; zero means zero.")
    share_by_phase: dict[str, float] = Field(description="Share of total absolute attribution.")
    completeness_error: float | None = Field(
        description="|sum of map - logit change| / |logit change|, for methods that promise it."
    )


class OutOfDistribution(_Message):
    """Does the lesion lie outside of what the network knows?"""

    score: float
    threshold: float = Field(description="Set on the validation split.")
    flagged: bool
    method: str


class Caution(_Message):
    """Something a reader must know before trusting the answer."""

    code: str = Field(description="e.g. 'phase_missing', 'phases_identical', 'single_slice'.")
    text: str


class LesionFacts(_Message):
    """What was explained. Holds no identity: the id is the hash of the canonical voxels."""

    id: str
    size_mm: tuple[float, float, float] = Field(description="VOI edges along R-L, A-P, S-I.")
    mm_per_voxel: float = Field(description="Edge of a voxel of the canonical grid.")
    phases: list[str] = Field(description="All that the network reads, in order.")
    missing_phases: list[str] = Field(
        default_factory=list,
        exclude_if=_empty,
        description="Phases that were not acquired. Left out where there are none.",
    )


class Provenance(_Message):
    """Everything needed to get the same bytes again."""

    bundle: str
    bundle_name: str
    trained_on: str
    synthetic: bool
    preprocessing: dict[str, float | int | str]
    passes: int
    seed: int
    map_steps: int
    code_version: str
    runtime: str


class Explanation(_Message):
    """One lesion, explained."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    disclaimer: str
    synthetic: bool = Field(description="True where the model was trained on synthetic lesions.")
    lesion: LesionFacts
    prediction: Prediction
    features: list[FeatureFinding] = Field(description="All features, found ones first.")
    expected_missing: list[str] = Field(description="Typical of the predicted class, not found.")
    speaks_for_others: list[str] = Field(description="Found, but typical of other classes only.")
    similar: list[SimilarLesion]
    maps: list[SaliencyMap]
    out_of_distribution: OutOfDistribution
    cautions: list[Caution]
    text: str = Field(description="Plain words, two or three sentences.")
    provenance: Provenance
