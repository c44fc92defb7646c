"""How often each model answered, and how long it took, as the protocol's statistics extension.

Times are those of a whole request behind the door: waiting and computing together. Kept in memory,
from the start of the process. Source: github.com/triton-inference-server/server,
docs/protocol/extension_statistics.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class _Record:
    count: int = 0
    nanoseconds: int = 0
    failed: int = 0
    failed_nanoseconds: int = 0
    rows: int = 0
    last: int = 0  # milliseconds since 1970


class Statistics:
    """Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], _Record] = {}

    def answered(
        self, model: str, bundle: str, inputs: Mapping[str, NDArray[np.float32]], started: int
    ) -> None:
        """started: time.perf_counter_ns at the request's start."""
        record = self._of(model, bundle)
        record.count += 1
        record.nanoseconds += time.perf_counter_ns() - started
        record.rows += len(next(iter(inputs.values())))
        record.last = time.time_ns() // 1_000_000

    def failed(self, model: str, bundle: str, started: int) -> None:
        record = self._of(model, bundle)
        record.failed += 1
        record.failed_nanoseconds += time.perf_counter_ns() - started

    def entry(self, model: str, bundle: str) -> dict[str, Any]:
        """Of one model of one bundle, in the protocol's words."""
        record = self._records.get((model, bundle), _Record())
        return {
            "name": model,
            "version": bundle,
            "last_inference": record.last,
            "inference_count": record.rows,
            "execution_count": record.count,
            "inference_stats": {
                "success": {"count": record.count, "ns": record.nanoseconds},
                "fail": {"count": record.failed, "ns": record.failed_nanoseconds},
            },
        }

    def forget(self, resident: list[str]) -> None:
        """Bundles that left the memory take their records with them."""
        for key in [k for k in self._records if k[1] not in resident]:
            del self._records[key]

    def _of(self, model: str, bundle: str) -> _Record:
        return self._records.setdefault((model, bundle), _Record())
