"""The explanation document: the one thing that CLI, API, report and viewers read.

Numbers are rounded before they are written, so that the same lesion, bundle and parameters give
the same bytes wherever they were computed.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = "2.0"

Status = Literal["present", "absent"]
FeatureSource = Literal["probes", "reader", "report"]
RelevanceForm = Literal["first_order", "activation_removal", "image_removal"]
Interval = tuple[float, float]


def _empty(values: list[str]) -> bool:
    return not values


def _none(value: object) -> bool:
    return value is None


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
    """How well the bundle's probe detects the feature, on lesions that it did not learn from.

    Intervals are 95 %, bootstrap over lesions. Null: not measured, or one group was empty.
    """

    auroc: float | None = Field(description="Null where one of the two groups was empty.")
    ci: Interval | None = Field(description="Interval of the AUROC.")
    n_present: int
    n_absent: int
    split: str = Field(description="The split that it was measured on, e.g. 'validation'.")
    average_precision: float | None = None
    average_precision_ci: Interval | None = None
    ppv: float | None = Field(None, description="At the operating point.")
    ppv_ci: Interval | None = None
    sensitivity: float | None = Field(None, description="At the operating point.")
    sensitivity_ci: Interval | None = None
    within_class_auroc: float | None = Field(
        None, description="Among lesions of one class: does the probe see more than the class?"
    )


class Effect(_Message):
    """A change of the predicted class's centred logit that the feature's presence makes.

    Positive speaks for the class. The centred logit is used because softmax ignores what all
    logits share.
    """

    value: float
    ci: Interval | None = Field(description="95 % interval; null where it cannot be had.")


class Relevance(_Message):
    """How much does the feature weigh in the verdict? In centred logits, signed.

    first_order: gradient of the logit along the feature's direction. activation_removal: change of
    the logit when the feature is taken out of the activations. image_removal: the same when it is
    edited out of the image. Forms that could not be computed are left out.
    """

    form: RelevanceForm = Field(description="The form that `value`, `ci` and `by_class` are of.")
    value: float = Field(description="For the predicted class.")
    ci: Interval | None
    forms: dict[RelevanceForm, Effect]
    by_class: dict[str, float] = Field(
        default_factory=dict, description="Class id -> effect on its centred logit."
    )
    shapley: float | None = Field(
        None,
        description="Share of the joint effect of all found features (Shapley value); null for a "
        "feature that was not found.",
    )


class Completeness(_Message):
    """Do the found features account for the verdict when they are removed together?"""

    form: RelevanceForm
    change: float = Field(
        description="Change of the predicted class's centred logit with all found features gone."
    )
    predicted_change: float = Field(description="What their single relevances add up to.")
    error: float | None = Field(
        description="|predicted_change - change| / |change|; null where nothing changes."
    )


class FeatureFinding(_Message):
    """One radiological feature of the vocabulary: is it found, how sure, how much does it weigh?"""

    id: str
    label: str
    found: bool = Field(description="At or above the threshold, and assessable.")
    probability: float = Field(ge=0, le=1, description="Calibrated leave-one-lesion-out.")
    threshold: float = Field(ge=0, le=1, description="Operating point; found means at or above it.")
    probe: str = Field(description="The kind of probe that decided, e.g. 'whitened'.")
    scores: dict[str, float] = Field(
        description="Score of every probe before calibration: log density ratio (nats), log-odds."
    )
    ci: Interval | None = Field(
        None,
        description="95 % interval of the probability over the stochastic passes and over draws of "
        "the lesions that lend their labels.",
    )
    relevance: Relevance
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
    reader: Status | None = Field(
        default=None,
        exclude_if=_none,
        description="What a reader or a report said of it. Left out where nobody did.",
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
    kind: Literal["class", "feature"]
    method: str = Field(description="e.g. 'integrated_gradients'.")
    max_abs: float = Field(description="Largest absolute value over the phases; zero means zero.")
    share_by_phase: dict[str, float] = Field(description="Share of total absolute attribution.")
    completeness_error: float | None = Field(
        description="|sum of map - logit change| / |logit change|, for methods that promise it."
    )
    gate: Literal["passed", "failed", "not_measured"] = Field(
        description="Outcome of the trust card of this method for this kind of target."
    )
    warning: str | None = Field(
        None, description="What must stand beside the map where the gate was not passed."
    )


class TrustCard(_Message):
    """How far a map method can be trusted on this network, measured when the bundle was made.

    Criteria after Arun et al. 2021 (doi 10.1148/ryai.2021200267). Null: not measured.
    """

    method: str
    kind: Literal["class", "feature"]
    n: int = Field(description="Maps that were measured.")
    split: str
    pointing: float | None = Field(
        None, description="Share of maps whose peak lies in the feature's mask."
    )
    pointing_ci: Interval | None = None
    auprc: float | None = Field(None, description="Of the map's voxels against the mask.")
    auprc_ci: Interval | None = None
    control_auprc: float | None = Field(
        None, description="The better of the centre prior and the edge detector."
    )
    randomisation: float | None = Field(
        None, description="Similarity to the maps of a network of random weights; low is good."
    )
    repeatability: float | None = Field(
        None, description="Similarity of the maps of two augmented views; high is good."
    )
    reproducibility: float | None = Field(
        None, description="Similarity to the maps of a network trained again; high is good."
    )
    completeness_error: float | None = Field(None, description="Median, where it is promised.")
    rises: float | None = Field(
        None,
        description="Share of maps whose target is higher at the lesion than at what it is "
        "compared with.",
    )
    passed: bool
    failed: list[str] = Field(default_factory=list, description="Criteria that were not met.")


class OutOfDistribution(_Message):
    """Does the lesion lie outside of what the network knows?"""

    score: float
    threshold: float = Field(description="Set on the validation split.")
    flagged: bool
    method: str


class Consistency(_Message):
    """Do the features fit the predicted class? Judged by P(features | class) of training labels.

    The features come from the probes, from a reader or from a report; the judgement is the same.
    """

    source: FeatureSource
    n_features: int = Field(description="Features with a say: known, and in the feature model.")
    class_id: str = Field(description="The class that the features alone speak for.")
    agrees: bool = Field(description="Is that the predicted class?")
    probabilities: list[ClassProbability] = Field(
        description="P(class | features), without the network's class. Highest first."
    )
    score: float = Field(
        description="Disagreement in nats: -log P(predicted class | features); 0 is full agreement."
    )
    expected_missing: list[str] = Field(
        description="Features expected for the predicted class but not found."
    )
    speaks_for_others: dict[str, str] = Field(
        description="Found feature that speaks against the predicted class -> the class that it "
        "speaks for."
    )


class ReviewReason(_Message):
    """One of the grounds of a review flag."""

    code: str = Field(description="A component, e.g. 'confidence', 'consistency'.")
    text: str


class Review(_Message):
    """Should a person look again? All alarms joined; the operating point is set on validation."""

    flagged: bool = Field(description="The score lies above the threshold.")
    score: float = Field(ge=0, le=1, description="Estimated probability that the class is wrong.")
    threshold: float = Field(ge=0, le=1)
    source: FeatureSource = Field(description="Whose features the score was computed with.")
    reasons: list[ReviewReason] = Field(description="Strongest first; empty where not flagged.")
    components: dict[str, float] = Field(
        description="Each alarm as it was measured, e.g. confidence, pass_variance, consistency."
    )
    auroc: float | None = Field(
        None, description="How well the score tells wrong answers from right ones."
    )
    ci: Interval | None = Field(None, description="95 % interval of the AUROC.")
    n: int = Field(0, description="Lesions that it was measured on.")
    split: str = ""


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
    map_method: str = Field(description="As asked for; 'default' is the bundle's own choice.")
    reader_features: dict[str, Status] = Field(
        default_factory=dict, description="Features that a reader or a report gave."
    )
    reader_source: Literal["reader", "report"] | None = None
    code_version: str
    runtime: str


class Explanation(_Message):
    """One lesion, explained."""

    schema_version: Literal["2.0"] = SCHEMA_VERSION
    disclaimer: str
    synthetic: bool = Field(description="True where the model was trained on synthetic lesions.")
    lesion: LesionFacts
    prediction: Prediction
    features: list[FeatureFinding] = Field(description="All features, found ones first.")
    completeness: Completeness | None = Field(
        description="Null where no feature was found, or the bundle cannot remove features."
    )
    consistency: list[Consistency] = Field(
        description="A reader's or a report's features first where given, then the probes'. Empty "
        "for a bundle without a feature model."
    )
    review: Review | None = Field(description="Null for a bundle without a review model.")
    measurements: dict[str, float] = Field(
        description="Image measurements, independent of the network; empty where not used."
    )
    similar: list[SimilarLesion]
    maps: list[SaliencyMap]
    trust: list[TrustCard] = Field(description="Trust cards of the methods of `maps`.")
    out_of_distribution: OutOfDistribution
    cautions: list[Caution]
    text: str = Field(description="Plain words: two sentences, and the reason of a flag.")
    provenance: Provenance
