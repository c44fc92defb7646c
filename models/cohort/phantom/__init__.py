"""Synthetic three-phase liver lesions with causal truth: draw a spec, render it, write a cohort."""

from models.cohort.phantom.generate import generate
from models.cohort.phantom.rendering import Rendering, render
from models.cohort.phantom.spec import PHASES, LesionSpec, draw

__all__ = ["PHASES", "LesionSpec", "Rendering", "draw", "generate", "render"]
