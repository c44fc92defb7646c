"""What judges a verdict, as one part of the bundle: features given class, the image's own opinion,
and the review score that joins them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.consistency.features import FeatureModel
from models.consistency.image import ImageExpert
from models.consistency.review import ReviewModel


@dataclass(frozen=True)
class ReviewQuality:
    """How well the score tells wrong answers from right ones, on lesions it was not fitted to."""

    auroc: float | None
    ci: tuple[float, float] | None
    n: int
    split: str


@dataclass(frozen=True)
class Judges:
    """features: P(feature | class). image: class from image measurements; None where a network has
    no such measurements. review: the joined score. quality: source of the features -> figures.
    """

    features: FeatureModel
    image: ImageExpert | None
    review: ReviewModel
    quality: Mapping[str, ReviewQuality] = field(default_factory=dict)

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """(tensors for safetensors, JSON meta)."""
        tensors: dict[str, NDArray[Any]] = {}
        meta: dict[str, Any] = {
            "quality": {
                s: {"auroc": q.auroc, "ci": q.ci and list(q.ci), "n": q.n, "split": q.split}
                for s, q in self.quality.items()
            }
        }
        parts = {"features": self.features, "image": self.image, "review": self.review}
        for name, part in parts.items():
            if part is not None:
                values, meta[name] = part.to_parts()
                tensors |= {f"{name}/{key}": np.asarray(value) for key, value in values.items()}
        return tensors, meta

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> Judges:
        """Raises KeyError or ValueError where something is missing or shapes disagree."""

        def own(name: str) -> dict[str, NDArray[Any]]:
            start = f"{name}/"
            return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

        quality = {
            s: ReviewQuality(
                q["auroc"], None if q["ci"] is None else (q["ci"][0], q["ci"][1]),
                int(q["n"]), str(q["split"]),
            )
            for s, q in meta["quality"].items()
        }  # fmt: skip
        return cls(
            FeatureModel.from_parts(own("features"), meta["features"]),
            ImageExpert.from_parts(own("image"), meta["image"]) if "image" in meta else None,
            ReviewModel.from_parts(own("review"), meta["review"]),
            quality,
        )
