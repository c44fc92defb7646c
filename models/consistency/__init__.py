"""Do a lesion's reasons agree with its verdict? Opinions on the class, joined into a flag."""

from models.consistency.features import FeatureModel
from models.consistency.image import ImageExpert
from models.consistency.reasons import REASONS, reasons
from models.consistency.review import EXPERTS, Opinions, ReviewModel
from models.consistency.surroundings import wiped

__all__ = [
    "EXPERTS",
    "REASONS",
    "FeatureModel",
    "ImageExpert",
    "Opinions",
    "ReviewModel",
    "reasons",
    "wiped",
]
