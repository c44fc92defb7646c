"""Do the features fit the predicted class? The probes' features, and a reader's or a report's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.consistency.features import FeatureModel
from models.reasons.detected import Detected
from models.reasons.predict import ranked
from models.reasons.rounding import decimals
from models.vocabulary import Vocabulary
from wire.explanation import Consistency, FeatureSource, Prediction, Status


def probe_features(detected: Sequence[Detected]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(probability, found) of each feature, NaN where it cannot be judged; both [F]."""
    probability = [s.probability if s.assessable else np.nan for s in detected]
    found = [float(s.found) if s.assessable else np.nan for s in detected]
    return np.array(probability, dtype=np.float64), np.array(found, dtype=np.float64)


def statuses(given: Mapping[str, Status], features: Sequence[str]) -> NDArray[np.float64]:
    """1 present, 0 absent, NaN not said, [F]."""
    value = {"present": 1.0, "absent": 0.0}
    return np.array([value[given[f]] if f in given else np.nan for f in features])


def consistency(
    model: FeatureModel,
    source: FeatureSource,
    evidence: NDArray[np.float64],
    found: NDArray[np.float64],
    prediction: Prediction,
    vocabulary: Vocabulary,
) -> Consistency:
    """evidence: [F] as the model makes it of probabilities or statuses. found: 1, 0 or NaN [F]."""
    class_index = model.classes.index(prediction.class_id)
    shares = model.posterior(evidence)
    alone = ranked(shares, model.classes, vocabulary)
    present = {f for f, y in zip(model.features, found, strict=True) if y == 1}
    against = model.speaks_for(evidence, class_index)
    return Consistency(
        source=source,
        n_features=int(np.isfinite(found).sum()),
        class_id=alone[0].id,
        agrees=alone[0].id == prediction.class_id,
        probabilities=alone,
        score=decimals(-float(np.log(max(float(shares[class_index]), 1e-9)))),
        expected_missing=model.expected_missing(found, class_index),
        speaks_for_others={f: other for f, (other, _) in against.items() if f in present},
    )
