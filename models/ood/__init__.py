"""Does a lesion lie outside of what the network knows? A score on activations and the image."""

from models.ood.image import describe
from models.ood.score import OutOfDistributionScore, readout

__all__ = ["OutOfDistributionScore", "describe", "readout"]
