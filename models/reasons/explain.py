"""The explanation: a pure function of (lesion, bundle, parameters).

lesion -> stochastic passes -> class, pass agreement      (mean over passes)
                            -> activations -> features    (probes)
                            -> gradients   -> influence   (first order)
       -> plain pass        -> saliency maps, out-of-distribution score
all rounded, then put into words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import voi
from models.attribution import chunked
from models.attribution.integrated import centred_logit
from models.bundle.read import Bundle
from models.model import Model
from models.passes import views
from models.reasons import cautions
from models.reasons.distribution import outside
from models.reasons.document import (
    code_version,
    document_bytes,
    explanation_id,
    maps_bytes,
    maps_from_bytes,
)
from models.reasons.maps import saliency
from models.reasons.predict import check_phases, ranked
from models.reasons.relevance import influence
from models.reasons.rounding import decimals
from models.reasons.similar import similar_lesions
from models.reasons.words import plain_text
from models.voi import Lesion
from wire.api import ExplanationParameters
from wire.explanation import (
    DetectionQuality,
    Explanation,
    FeatureFinding,
    LesionFacts,
    Prediction,
    Provenance,
)

__all__ = [
    "DISCLAIMER",
    "Result",
    "document_bytes",
    "explain",
    "explanation_id",
    "maps_bytes",
    "maps_from_bytes",
]

DISCLAIMER = "research software, not a medical device"
RUNTIME = "onnxruntime"

Progress = Callable[[str, float], None]

# Stage -> where it starts on the way from 0 to 1.
_STAGES = {
    "averaging stochastic passes": 0.0,
    "looking for features": 0.2,
    "weighing features": 0.25,
    "drawing maps": 0.5,
    "putting it into words": 0.98,
}


@dataclass(frozen=True)
class Result:
    """The document, and its maps: name -> float32 [P, K, K, K] on the network's grid."""

    document: Explanation
    maps: dict[str, NDArray[np.float32]]


def explain(
    lesion: Lesion,
    bundle: Bundle,
    model: Model,
    parameters: ExplanationParameters,
    progress: Progress | None = None,
) -> Result:
    """Explain one lesion.

    progress(stage, fraction) is called before each stage and each chunk; it may raise to cancel.
    Raises InputError for a lesion that the bundle cannot read.
    """
    check_phases(lesion, bundle)
    manifest, vocabulary, probes = bundle.manifest, bundle.vocabulary, bundle.probes
    taps = manifest.probe_taps

    base = voi.normalise(lesion, bundle.preprocessing)
    plain = voi.centre(base, bundle.preprocessing)
    tick = _ticker(progress, "averaging stochastic passes")
    tick(0.0)
    passes = views(base, bundle.preprocessing, bundle.recipe, parameters.passes, parameters.seed)
    outputs = chunked.forward(model, passes, ["logits", *taps], tick)
    plain_outputs = model.forward(plain[None], bundle.ood.taps)
    prediction = _prediction(outputs["logits"], bundle)
    class_index = manifest.classes.index(prediction.class_id)

    _ticker(progress, "looking for features")(0.0)
    h = bundle.probe_vector(outputs).mean(axis=0, dtype=np.float64)

    target = {"logits": centred_logit(class_index, len(manifest.classes))}
    tick = _ticker(progress, "weighing features")
    slopes = bundle.probe_vector(chunked.gradients(model, passes, target, taps, tick))
    features = _features(h, slopes, bundle, lesion.missing)

    drawn = saliency(
        model, plain, prediction, features, bundle, parameters, _ticker(progress, "drawing maps")
    )

    _ticker(progress, "putting it into words")(0.0)
    ood = outside(plain_outputs, plain[None], bundle, lesion.missing)
    typical = [f.id for f in vocabulary.features if prediction.class_id in f.typical_of]
    found = [f.id for f in features if f.found]
    known = set(probes.features)
    blind = {f.id for f in features if not f.assessable}
    missing = [f for f in typical if f in known and f not in found and f not in blind]
    others = [f.id for f in features if f.found and f.typical_of and f.id not in typical]
    document = Explanation(
        disclaimer=DISCLAIMER,
        synthetic=manifest.synthetic,
        lesion=LesionFacts(
            id=lesion.id,
            size_mm=tuple(decimals(v, 1) for v in lesion.size_mm),  # type: ignore[arg-type]
            mm_per_voxel=decimals(lesion.mm_per_voxel, 3),
            phases=list(lesion.phases),
            missing_phases=list(lesion.missing),
        ),
        prediction=prediction,
        features=features,
        expected_missing=missing,
        speaks_for_others=others,
        similar=similar_lesions(h, bundle.reference, vocabulary),
        maps=drawn.entries,
        out_of_distribution=ood,
        cautions=[
            *cautions.about_distribution(ood),
            *cautions.about_lesion(lesion, vocabulary),
            *cautions.about_passes(prediction, parameters.passes),
        ],
        text=plain_text(prediction, features, missing, others, ood, vocabulary),
        provenance=Provenance(
            bundle=manifest.hash,
            bundle_name=manifest.name,
            trained_on=manifest.trained_on,
            synthetic=manifest.synthetic,
            preprocessing=dict(manifest.preprocessing),
            passes=parameters.passes,
            seed=parameters.seed,
            map_steps=parameters.map_steps,
            code_version=code_version(),
            runtime=RUNTIME,
        ),
    )
    return Result(document, drawn.arrays)


def _ticker(progress: Progress | None, stage: str) -> chunked.Tick:
    """Fraction within a stage -> a call of progress with the fraction of the whole."""
    starts = list(_STAGES)
    low = _STAGES[stage]
    after = starts.index(stage) + 1
    high = _STAGES[starts[after]] if after < len(starts) else 1.0

    def tick(fraction: float) -> None:
        if progress:
            progress(stage, round(low + (high - low) * fraction, 4))

    return tick


def _prediction(logits: NDArray, bundle: Bundle) -> Prediction:
    """logits: [n, C] of the passes."""
    classes = bundle.manifest.classes
    shares = bundle.probabilities(logits)
    probabilities = ranked(shares.mean(axis=0), classes, bundle.vocabulary)
    winner = classes.index(probabilities[0].id)
    return Prediction(
        class_id=probabilities[0].id,
        label=probabilities[0].label,
        probabilities=probabilities,
        pass_agreement=decimals(float(np.mean(shares.argmax(axis=1) == winner))),
    )


def _features(
    h: NDArray, slopes: NDArray, bundle: Bundle, lacking: Sequence[str] = ()
) -> list[FeatureFinding]:
    """Every feature of the probes, found ones first, each group by probability.

    h: pass-averaged activations [D]. slopes: gradient of the centred logit, a row a pass [n, D].
    lacking: phases that were not acquired.
    """
    probes = bundle.probes
    scores = probes.scores(h)
    probabilities = probes.probabilities(h)
    findings = []
    for i, feature_id in enumerate(probes.features):
        feature = bundle.vocabulary.feature(feature_id)
        probability = decimals(probabilities[i])
        threshold = decimals(probes.thresholds[i])
        absent = [p for p in feature.judged_on if p in lacking]
        assessable = not absent or len(absent) < len(feature.judged_on)
        findings.append(
            FeatureFinding(
                id=feature_id,
                label=feature.label,
                found=probability >= threshold and probes.thresholds[i] < 1 and assessable,
                probability=probability,
                threshold=threshold,
                probe=probes.kinds[i],
                scores={kind: decimals(values[i], 3) for kind, values in scores.items()},
                influence=influence(slopes, probes.direction(i), len(bundle.manifest.probe_taps)),
                quality=_quality(probes.quality[i]),
                typical_of=list(feature.typical_of),
                missing_phases=absent,
                assessable=assessable,
            )
        )
    return sorted(findings, key=lambda f: (not f.found, -f.probability))


def _quality(measured: DetectionQuality) -> DetectionQuality:
    ci = measured.ci
    return measured.model_copy(
        update={
            "auroc": None if measured.auroc is None else decimals(measured.auroc, 3),
            "ci": None if ci is None else (decimals(ci[0], 3), decimals(ci[1], 3)),
        }
    )
