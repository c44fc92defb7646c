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
RESULTS = (DOCUMENT, MAPS, REPORT)
