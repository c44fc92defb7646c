"""One lesion as each kind of request body that the service reads, with the headers it needs."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.load.endpoint import HEADER_LENGTH
from models.cohort.nifti import nifti_bytes
from models.volume import Study

BOUNDARY = "lesionlens-benchmark"


@dataclass(frozen=True)
class Body:
    """A request body. query: of the address."""

    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""


def tensor_bodies(x: NDArray[np.float32]) -> dict[str, Body]:
    """x [B, P, K, K, K] under the Open Inference Protocol, one body a format."""
    scale = float(np.abs(x).max()) / 127
    small = np.clip(np.rint(x / scale) + 128, 0, 255).astype(np.uint8)
    found = {
        "oip_json": oip_json(x),
        "oip_binary": oip_binary(x.astype("<f4"), "FP32"),
        "oip_fp16": oip_binary(x.astype("<f2"), "FP16"),
        "oip_uint8": oip_binary(small, "UINT8", scale=scale, offset=-128 * scale),
    }
    plain = found["oip_binary"]
    for name, packed in (
        ("gzip", gzip.compress(plain.data, 6)),
        ("zstd", zstandard.ZstdCompressor(3).compress(plain.data)),
    ):
        found[f"oip_binary_{name}"] = Body(packed, dict(plain.headers) | {"content-encoding": name})
    return found


def oip_json(x: NDArray[np.float32]) -> Body:
    tensor = {
        "name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist(),
    }  # fmt: skip
    return Body(json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"})


def oip_binary(x: NDArray, datatype: str, **parameters: float) -> Body:
    """parameters: scale and offset of UINT8, where value = u * scale + offset."""
    tensor = {
        "name": "x", "datatype": datatype, "shape": list(x.shape),
        "parameters": {"binary_data_size": x.nbytes, **parameters},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return Body(head + x.tobytes(), {HEADER_LENGTH.lower(): str(len(head))})


def study_bodies(study: Study) -> dict[str, Body]:
    """A study of equal grids as multipart NIfTI, stacked .npy, and JSON."""
    phases = list(study.volumes)
    box = study.boxes[phases[0]]
    corners = ",".join(str(int(v)) for v in [*box.lower, *box.upper])
    spacing = ",".join(f"{s:.6g}" for s in study.volumes[phases[0]].spacing)
    packed = {p: nifti_bytes(v) for p, v in study.volumes.items()}
    plain = {p: gzip.decompress(data) for p, data in packed.items()}
    stacked = io.BytesIO()
    np.save(stacked, np.stack([v.data for v in study.volumes.values()]))
    volumes = {
        p: {"voxels": v.data.tolist(), "spacing": [float(s) for s in v.spacing]}
        for p, v in study.volumes.items()
    }
    return {
        "nii": multipart(plain, ".nii", corners),
        "nii_gz": multipart(packed, ".nii.gz", corners),
        "npy": Body(
            stacked.getvalue(),
            {"content-type": "application/x-npy"},
            f"spacing={spacing}&box={corners}",
        ),
        "json": Body(
            json.dumps({"phases": volumes, "box": corners}).encode(),
            {"content-type": "application/json"},
        ),
    }


def multipart(files: Mapping[str, bytes], suffix: str, box: str) -> Body:
    parts = []
    for name, data in files.items():
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; '
            f'filename="{name}{suffix}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        parts.append(head.encode() + data + b"\r\n")
    text = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="box"\r\n\r\n{box}\r\n'
    parts.append(f"{text}--{BOUNDARY}--\r\n".encode())
    return Body(b"".join(parts), {"content-type": f"multipart/form-data; boundary={BOUNDARY}"})
