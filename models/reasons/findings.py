"""The features as the document lists them: what is seen, how well, how much it weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.bundle.read import Bundle
from models.reasons.detected import Detected
from models.reasons.rounding import decimals
from wire.explanation import DetectionQuality, FeatureFinding, Relevance, Status


def findings(
    detected: Sequence[Detected],
    relevance: Mapping[str, Relevance],
    bundle: Bundle,
    reader: Mapping[str, Status],
) -> list[FeatureFinding]:
    """Found ones first, each group by probability.

    detected: in the order of the bundle's probes. relevance: feature id -> its weight. reader: what
    a reader or a report says of features.
    """
    probes = bundle.probes
    entries = [
        FeatureFinding(
            id=seen.id,
            label=bundle.vocabulary.feature(seen.id).label,
            found=seen.found,
            probability=seen.probability,
            threshold=seen.threshold,
            probe=probes.kinds[i],
            scores=seen.scores,
            ci=seen.ci,
            relevance=relevance[seen.id],
            quality=_rounded(probes.quality[i]),
            typical_of=list(bundle.vocabulary.feature(seen.id).typical_of),
            missing_phases=seen.absent,
            assessable=seen.assessable,
            reader=reader.get(seen.id),
        )
        for i, seen in enumerate(detected)
    ]
    return sorted(entries, key=lambda f: (not f.found, -f.probability))


def _rounded(measured: DetectionQuality) -> DetectionQuality:
    """Three decimals for every figure and interval."""
    update: dict[str, object] = {}
    for name, value in measured:
        if isinstance(value, float):
            update[name] = decimals(value, 3)
        elif isinstance(value, tuple):
            update[name] = (decimals(value[0], 3), decimals(value[1], 3))
    return measured.model_copy(update=update)
