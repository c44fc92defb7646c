"""The manifest of a model bundle: the only thing that passes from training to serving.

A bundle is a folder:

    manifest.json            this message; `hash` is the content address of everything else
    classifier.onnx          x -> scores, logits, every tap (pooled) and every '<tap>_map'
    gradients.onnx           x, w_logits, w_<tap>... -> grad_input, grad_<tap>...
    vocabulary.json          classes, phases, features
    probes.json, probes.safetensors        feature probes and their calibration
    reference.json, reference.safetensors  training activations: marginal, neighbours, OOD
    relevance.json, relevance.safetensors  directions along which a feature is taken away (optional)
    consistency.json, consistency.safetensors  features given class, review score (optional)
    trust.json               trust cards of the map methods
    parity.safetensors       a stored sample: x, logits, fc, weights, gradient
    training.json, evaluation.json, card.md
    metadata.json            for MONAI tooling
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

BUNDLE_SCHEMA: Final = 3


class Manifest(BaseModel):
    """Everything a server needs before it opens another file."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    schema_version: Literal[3] = BUNDLE_SCHEMA
    name: str
    hash: str = Field(description="'b-' and 20 hex digits over files, checksums and fields.")
    architecture: str
    trained_on: str = Field(description="Name of the cohort.")
    synthetic: bool
    classes: list[str]
    phases: list[str]
    optional_phases: list[str] = Field(
        default_factory=list, description="May be missing from a study: trained with phase dropout."
    )
    modality: Literal["MR", "CT"] = "MR"
    origin: Literal["trained", "adopted"] = Field(
        "trained", description="Adopted: the classifier was trained elsewhere."
    )
    features: list[str]
    taps: dict[str, int] = Field(description="Pooled tap name -> length, in network order.")
    probe_taps: list[str] = Field(description="Taps whose concatenation the probes read.")
    measurements: list[str] = Field(
        default_factory=list,
        description="Image measurements that the probes read after the taps, in order.",
    )
    preprocessing: dict[str, float | int | str]
    passes: dict[str, float | int | bool] = Field(description="Recipe of the stochastic passes.")
    temperature: float = Field(gt=0)
    files: dict[str, str] = Field(description="Relative path -> sha256, hex.")
