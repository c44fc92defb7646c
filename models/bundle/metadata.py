"""metadata.json in the keys of the MONAI Bundle Specification, so that MONAI tooling reads it.

https://docs.monai.io/en/latest/mb_specification.html: version, package versions, task,
description, network_data_format with a format specifier for every tensor.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from models.bundle.parts import BundleParts


def metadata(parts: BundleParts) -> dict[str, Any]:
    """The metadata of `parts`. Versions are those installed where the bundle is written."""
    vocabulary, spec = parts.vocabulary, parts.preprocessing
    edge = spec.tensor_voxels
    classes = {str(i): c.label for i, c in enumerate(vocabulary.classes)}
    data = "synthetic phantom lesions" if parts.synthetic else "imported lesions"
    scan = {"MR": "MRI", "CT": "CT"}[parts.modality]
    return {
        "version": _version("lesionlens"),
        "changelog": {_version("lesionlens"): "written by lesionlens"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {"onnxruntime": _version("onnxruntime")},
        "name": parts.name,
        "task": f"Classification of liver lesions on multi-phase contrast-enhanced {scan}",
        "description": (
            f"{parts.architecture}: {len(classes)} lesion classes from "
            f"{len(vocabulary.phases)} contrast phases, with named activation taps and an input "
            f"gradient graph for explanations. Trained on {parts.trained_on} ({data})."
        ),
        "authors": "lesionlens contributors",
        "copyright": "Copyright (c) lesionlens contributors; Apache-2.0",
        "intended_use": "Research software, not a medical device.",
        "data_source": parts.trained_on,
        "data_type": "nifti",
        "synthetic": parts.synthetic,
        "references": [
            "Wang C.J., Hamm C.A. et al. Deep learning for liver tumor diagnosis part II: "
            "convolutional neural network interpretation using radiologic imaging features. "
            "Eur Radiol 29:3348-3357 (2019). doi:10.1007/s00330-019-06214-8"
        ],
        "network_data_format": {
            "inputs": {
                "x": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": parts.modality,
                    "num_channels": len(vocabulary.phases),
                    "spatial_shape": [edge, edge, edge],
                    "dtype": "float32",
                    "value_range": [-spec.clip, spec.clip],
                    "is_patch_data": False,
                    "channel_def": {str(i): p.label for i, p in enumerate(vocabulary.phases)},
                }
            },
            "outputs": {
                "scores": _output("probabilities", "classes", len(classes), [0, 1], classes),
                "logits": _output("tuples", "classes", len(classes), [], classes),
                **{
                    tap: _output("tuples", "latent", length, [], {})
                    for tap, length in parts.taps.items()
                },
            },
        },
    }


def _output(
    kind: str, form: str, channels: int, value_range: list[float], names: dict[str, str]
) -> dict[str, Any]:
    return {
        "type": kind,
        "format": form,
        "num_channels": channels,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": value_range,
        "is_patch_data": False,
        "channel_def": names,
    }


def _version(package: str) -> str:
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "not installed"
