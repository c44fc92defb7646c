"""A lesion's image as if one feature were not there: an edit a feature, no generator, no mask."""

from models.imaging.edits.registry import EDITS, Edits, remove

__all__ = ["EDITS", "Edits", "remove"]
