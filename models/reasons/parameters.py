"""What a caller asks for, checked against the bundle before any work is done."""

from __future__ import annotations

from models.attribution.registry import method
from models.bundle.read import Bundle
from models.errors import InputError
from wire.api import ExplanationParameters


def check_parameters(parameters: ExplanationParameters, bundle: Bundle) -> None:
    """Raises InputError for a feature that the bundle's vocabulary lacks, or an unknown method."""
    known = bundle.vocabulary.feature_ids
    unknown = sorted(set(parameters.reader_features) - set(known))
    if unknown:
        raise InputError(
            "no such feature",
            code="unknown_feature",
            field="reader_features",
            found=unknown[0][:60],
            expected="of " + ", ".join(known),
        )
    if parameters.map_method != "default":
        method(parameters.map_method)
