"""Where things of a job lie in the blob store."""

from __future__ import annotations


def lesion(lesion_id: str) -> str:
    return f"lesions/{lesion_id}.npz"


def result(job_id: str) -> str:
    """Prefix of a job's results."""
    return f"explanations/{job_id}"


DOCUMENT = "document.json"
MAPS = "maps.npz"
REPORT = "report.html"
# What a bulk job leaves in place of MAPS, which are made of it when somebody asks.
RAW_MAPS = "maps.raw.npz"
RESULTS = (DOCUMENT, MAPS, RAW_MAPS, REPORT)
