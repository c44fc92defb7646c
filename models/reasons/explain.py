"""The explanation: a pure function of (lesion, bundle, parameters).

lesion -> stochastic passes -> class, pass agreement      (mean over passes)
                            -> activations -> features    (probes)
                            -> gradients   -> relevance   (and removal in activations and image)
       -> image             -> measurements, for probes and for a second opinion on the class
       -> plain pass        -> saliency maps, out-of-distribution score
features, opinions          -> consistency, review flag
all rounded, then put into words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import voi
from models.attribution import chunked
from models.attribution.goal import centred_logit
from models.bundle.read import Bundle
from models.imaging.edits import Edits
from models.model import Model
from models.reasons import cautions
from models.reasons.detected import detect
from models.reasons.distribution import outside
from models.reasons.document import (
    code_version,
    document_bytes,
    explanation_id,
    maps_bytes,
    maps_from_bytes,
)
from models.reasons.findings import findings
from models.reasons.maps import saliency
from models.reasons.parameters import check_parameters
from models.reasons.predict import check_phases, ranked
from models.reasons.relevance import View, weigh
from models.reasons.rounding import decimals, significant
from models.reasons.similar import similar_lesions
from models.reasons.verdict import verdict
from models.reasons.words import plain_text
from models.recipes import Draw
from models.voi import Lesion
from wire.api import ExplanationParameters
from wire.explanation import Explanation, LesionFacts, Prediction, Provenance

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
    check_parameters(parameters, bundle)
    manifest, vocabulary = bundle.manifest, bundle.vocabulary
    taps = manifest.probe_taps

    base = voi.normalise(lesion, bundle.preprocessing)
    plain = voi.centre(base, bundle.preprocessing)
    tick = _ticker(progress, "averaging stochastic passes")
    tick(0.0)
    plain_outputs = model.forward(plain[None], ["logits", *manifest.taps])
    draw = Draw(base, bundle.preprocessing, bundle.recipe, parameters.passes, parameters.seed)
    slopes_of = [f"grad_{tap}" for tap in taps]
    # The passes nearly always agree with the plain view on the class whose gradients are asked for.
    likely = int(plain_outputs["logits"][0].argmax())
    outputs = chunked.passes(
        model, draw, ["logits", *taps, *slopes_of], class_target(likely, bundle), tick
    )
    prediction = _prediction(outputs["logits"], bundle)
    class_index = manifest.classes.index(prediction.class_id)

    _ticker(progress, "looking for features")(0.0)
    measured = bundle.measure(base, lesion.size_mm)
    h = bundle.probe_vector(outputs, measured)
    detected = detect(h, bundle, lesion.missing)

    tick = _ticker(progress, "weighing features")
    tick(0.0)
    evidence = bundle.evidence
    if class_index != likely:
        outputs |= chunked.passes(model, draw, slopes_of, class_target(class_index, bundle), tick)
    slopes = evidence.tap_vector({tap: outputs[f"grad_{tap}"] for tap in taps})
    edits = Edits(base, lesion.size_mm, bundle.preprocessing, tuple(manifest.phases))
    view = View(base, lesion.size_mm, plain_outputs, slopes, class_index, edits)
    weighed = weigh(view, [seen.id for seen in detected if seen.found], bundle, model)
    features = findings(detected, weighed.features, bundle, parameters.reader_features)

    drawn = saliency(
        model, base, lesion.size_mm, prediction, features, bundle, parameters,
        _ticker(progress, "drawing maps"), edits,
    )  # fmt: skip

    _ticker(progress, "putting it into words")(0.0)
    ood = outside(plain_outputs, plain[None], bundle, lesion.missing)
    network = bundle.probabilities(outputs["logits"]).mean(axis=0)
    fits, flag = verdict(
        prediction, network, detected, ood, base, lesion.size_mm, not lesion.missing,
        bundle, model, parameters,
    )  # fmt: skip
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
        completeness=weighed.completeness,
        consistency=fits,
        review=flag,
        measurements={
            name: significant(value)
            for name, value in zip(evidence.measurements, measured, strict=True)
        },
        similar=similar_lesions(
            h[:, : evidence.tap_length].mean(axis=0, dtype=np.float64), bundle.reference, vocabulary
        ),
        maps=drawn.entries,
        trust=[c for c in bundle.trust if (c.kind, c.method) in drawn.methods],
        out_of_distribution=ood,
        cautions=[
            *cautions.about_distribution(ood),
            *cautions.about_lesion(lesion, vocabulary),
            *cautions.about_passes(prediction, parameters.passes),
        ],
        text=plain_text(prediction, features, flag, ood),
        provenance=Provenance(
            bundle=manifest.hash,
            bundle_name=manifest.name,
            trained_on=manifest.trained_on,
            synthetic=manifest.synthetic,
            preprocessing=dict(manifest.preprocessing),
            passes=parameters.passes,
            seed=parameters.seed,
            map_steps=parameters.map_steps,
            map_method=parameters.map_method,
            reader_features=dict(sorted(parameters.reader_features.items())),
            reader_source=parameters.reader_source if parameters.reader_features else None,
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


def class_target(class_index: int, bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """Weights of a class's centred logit."""
    return {"logits": centred_logit(class_index, len(bundle.manifest.classes))}


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
