"""What was promised, what was found, and whether the one reaches the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.plots.style import NAMES, NETWORKS
from benchmarks.report.markdown import number
from benchmarks.report.records import Records, at, middle

BEHIND = ("litserve", "mlserver", "bentoml")  # to be ahead of
LEVEL = ("mosec", "fastapi")  # to be no worse than by a trace
STRAIGHT = 0.98
AT_ONCE_MS = 50.0  # half of the refusals, counted from when the request was due


@dataclass(frozen=True)
class Target:
    """met is None where nothing was measured."""

    what: str
    wanted: str
    found: str
    met: bool | None


def targets(records: Records) -> list[Target]:
    """All of them, in the order of the page."""
    return [
        *_predictions(records.get("predict")),
        *_null(records.get("predict")),
        _variant(records),
        *_explanations(records.get("explain")),
        *_overload(records.get("overload")),
        *_cold(records.get("cold")),
        *_bulk(records.get("bulk")),
    ]


def _limit(what: str, value: float | None, *, least: float | None = None, most: float | None = None,
           strictly: bool = False, unit: str = "") -> Target:  # fmt: skip
    """A figure against one bound. strictly: the bound itself is not enough."""
    if (least is None) == (most is None):
        raise ValueError("one bound")
    bound = least if least is not None else most
    word = ("more than" if strictly else "at least") if least is not None else (
        "less than" if strictly else "at most"
    )  # fmt: skip
    wanted = f"{word} {bound:g}{unit}"
    if value is None or bound is None:
        return Target(what, wanted, "not measured", None)
    ahead = value - bound if least is not None else bound - value
    return Target(what, wanted, f"{number(value)}{unit}", ahead > 0 if strictly else ahead >= 0)


def _worst(
    values: Mapping[str, Any] | None,
    worst: Callable[[list[float]], float],
    only: tuple[str, ...] = (),
) -> float | None:
    """The least favourable median over concurrencies."""
    found = [middle(v) for c, v in (values or {}).items() if not only or c in only]
    known = [v for v in found if v is not None]
    return worst(known) if known else None


def _predictions(record: Mapping[str, Any] | None) -> Iterator[Target]:
    networks = at(record, "networks") or {"given": None, "wang2019": None}
    for name, found in networks.items():
        where = f", {NETWORKS.get(name, name)}"
        ratios = at(found, "ratios") or {}
        yield _limit(
            f"CPU a request over the bare model's, worst c{where}",
            _worst(ratios.get("cpu_per_request_vs_inprocess"), max), most=1.08, unit=" ×",
        )  # fmt: skip
        yield _limit(
            f"throughput over the bare model's, worst of c = 8 and 32{where}",
            _worst(ratios.get("throughput_vs_inprocess"), min, ("8", "32")), least=0.92, unit=" ×",
        )  # fmt: skip
        peers = ratios.get("vs_peer") or {}
        for peer in BEHIND:
            yield _limit(
                f"throughput over {NAMES[peer]}'s, worst c{where}",
                _worst(peers.get(peer), min), least=1.0, strictly=True, unit=" ×",
            )  # fmt: skip
        for peer in LEVEL:
            yield _limit(
                f"throughput over {NAMES[peer]}'s, worst c{where}",
                _worst(peers.get(peer), min), least=0.97, unit=" ×",
            )  # fmt: skip
        p50, p99 = middle(at(found, "p50_ms", "32")), middle(at(found, "p99_ms", "32"))
        yield _limit(
            f"p99 over p50 at c = 32{where}",
            p99 / p50 if p50 and p99 is not None else None, most=1.5, unit=" ×",
        )  # fmt: skip


def _null(record: Mapping[str, Any] | None) -> Iterator[Target]:
    for way, name in (("rest_binary", "REST, binary"), ("grpc", "gRPC")):
        value = middle(at(record, "null_model_cpu_ms", way))
        what = f"server's own cost, 196,608-byte body, {name}"
        if way == "rest_binary":
            yield _limit(what, value, most=0.6, unit=" CPU-ms")
        elif value is None:
            yield Target(what, "beside it", "not measured", None)
        else:
            yield Target(what, "beside it", f"{number(value)} CPU-ms", True)


def _variant(records: Records) -> Target:
    value = middle(at(records.get("variants"), "ratios", "fast_variant_vs_fp32"))
    if value is None:
        value = middle(at(records.get("predict"), "ratios", "fast_variant_vs_fp32"))
    return _limit(
        "fastest accepted variant over fp32, throughput", value, least=2.5, unit=" ×"
    )  # fmt: skip


def _explanations(record: Mapping[str, Any] | None) -> Iterator[Target]:
    yield _limit(
        "CPU of the same maps over torch with Captum",
        middle(at(record, "ratios", "cpu_vs_captum")), most=0.7, unit=" ×",
    )  # fmt: skip
    yield _limit(
        "maps against Captum's, median relative L2", middle(at(record, "agreement", "median")),
        most=1e-3,
    )  # fmt: skip
    yield _limit(
        "the same deliverable, cheaper by", middle(at(record, "ratios", "deliverable_speedup")),
        least=10.0, unit=" ×",
    )  # fmt: skip
    yield _limit("a card, p95", middle(at(record, "card_p95_s")), most=1.0, unit=" s")
    lines = [middle(at(line, "r2")) for line in (at(record, "sweep") or {}).values()]
    straight = [r2 for r2 in lines if r2 is not None]
    yield _limit(
        "cost grows in a straight line, least R² of the sweeps",
        min(straight) if straight else None, least=STRAIGHT,
    )  # fmt: skip


def _overload(record: Mapping[str, Any] | None) -> Iterator[Target]:
    yield _limit(
        "overload: goodput over capacity", middle(at(record, "goodput_vs_capacity")),
        least=0.9, unit=" ×",
    )  # fmt: skip
    yield _limit(
        "overload: a refusal's latency, median", middle(at(record, "refusal_ms", "p50")),
        most=AT_ONCE_MS, unit=" ms",
    )  # fmt: skip
    shares = [middle(at(record, k)) for k in ("lost_share", "unsent_share", "other_share")]
    known = [s for s in shares if s is not None]
    yield _limit(
        "overload: neither answered nor refused", sum(known) if known else None, most=0.0
    )  # fmt: skip
    yield _limit(
        "overload: growth of memory", middle(at(record, "rss_mb", "growth")),
        most=0.05, strictly=True,
    )  # fmt: skip
    recovery = middle(at(record, "recovery_s"))
    if record is not None and recovery is None:
        yield Target("overload: back to the normal p50", "at most 5 s", "never", False)
    else:
        yield _limit("overload: back to the normal p50", recovery, most=5.0, unit=" s")


def _cold(record: Mapping[str, Any] | None) -> Iterator[Target]:
    yield _limit(
        "cold start to ready", middle(at(record, "ready_seconds")), most=3.0, unit=" s"
    )  # fmt: skip
    packages = at(record, "service_training_packages")
    found = "not measured" if packages is None else ", ".join(packages) or "none"
    yield Target(
        "training packages in the service",
        "none",
        found,
        None if packages is None else not packages,
    )


def _bulk(record: Mapping[str, Any] | None) -> Iterator[Target]:
    for way, words in (("local", "here"), ("server", "on a server")):
        yield _limit(
            f"cohort {words}: share of the cores kept busy", middle(at(record, way, "busy")),
            least=0.9,
        )  # fmt: skip
        yield _limit(
            f"cohort {words}: overhead a lesion", middle(at(record, way, "overhead_per_lesion")),
            most=0.05, strictly=True,
        )  # fmt: skip
