"""Sections on the serving processes: how they scale, read a body, and start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.plots.style import network_title
from benchmarks.report.markdown import NOTHING, image, number, spreaded, table

Images = Mapping[str, str]


def scale(record: Mapping[str, Any], images: Images) -> list[str]:
    lines = ["## Scale", ""]
    for name, found in record["networks"].items():
        title = network_title(name, found["network"])
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += table(
            ["cores", "replicas", "sessions", "threads", "answers a second", "CPU, ms", "PSS, MB"],
            [
                [
                    row["cores"], row["replicas"], row["sessions"], row["threads"],
                    spreaded(row["rate"]), number(row["cpu_ms"]["median"]), number(row["pss_mb"]),
                ]
                for row in found["layouts"]
            ],
        )  # fmt: skip
        checked = found["queueing"]
        lines += [
            "Random arrivals at one replica with two places, measured and on paper (Sakasegawa's "
            f"wait, service as measured: {number(checked['service_ms'])} ms, squared variation "
            f"{number(checked['service_variation'])}). *In the system* is counted on the trace and "
            "computed by Little's law:", "",
        ]  # fmt: skip
        lines += table(
            ["load", "p50, ms", "on paper", "p99, ms", "on paper", "in the system", "Little"],
            [
                [
                    row["load"],
                    number(row["measured_ms"]["p50"]), number(row["formula_ms"]["p50"]),
                    number(row["measured_ms"]["p99"]), number(row["formula_ms"]["p99"]),
                    number(row["in_system"]["counted"]), number(row["in_system"]["little"]),
                ]
                for row in checked["loads"]
            ],
        )  # fmt: skip
        lines += [
            "On paper, a replica for each two cores, at 0.7 of the capacity; each replica with a "
            "queue of its own, and all with one:", "",
        ]  # fmt: skip
        lines += table(
            ["cores", "replicas", "capacity, /s", "p99 apart, ms", "together, ms", "memory, MB"],
            [
                [
                    row["cores"], row["replicas"], number(row["capacity"]),
                    number(row["own_queues_ms"]["p99"]), number(row["one_queue_ms"]["p99"]),
                    number(row["memory_mb"]),
                ]
                for row in found["extrapolated"]
            ],
        )  # fmt: skip
    worker = record.get("worker_memory_mb")
    if worker:
        lines += [
            f"Memory (PSS) of a whole stack: front door {number(worker['front'])} MB, worker with "
            f"{worker['processes']:.0f} processes {number(worker['worker'])} MB, of which "
            f"{number(worker['each_process'])} MB each process; Redis "
            f"{number(worker['redis'])} MB.",
            "",
        ]
    return lines + image("scale", "Throughput by layout, latency against load", images)


def codec(record: Mapping[str, Any], images: Images) -> list[str]:
    rows = [
        [f"`{name}`", f"{row['bytes']:,}", spreaded(row["cpu_ms"]), number(row["max_error"])]
        for name, row in record["formats"].items()
    ]
    lines = [
        "## Reading a body", "",
        "The service's own decoders, CPU of one body. `oip_…` carry one tensor, the others a study "
        "of three volumes.", "",
        *table(["format", "bytes", "CPU, ms", "largest error"], rows),
    ]  # fmt: skip
    refused = record.get("not_read") or {}
    if refused:
        lines += [f"- `{name}` is not read: {why}" for name, why in refused.items()] + [""]
    return lines + image("codec", "CPU and bytes by format", images)


def cold(record: Mapping[str, Any], images: Images) -> list[str]:
    rows = [
        [f"bundle: {name.replace('_', ' ')}", spreaded(value)]
        for name, value in record["seconds"].items()
    ]
    rows += [
        ["service: from start to ready", spreaded(record["ready_seconds"])],
        ["service: CPU until then", spreaded(record.get("ready_cpu_seconds"))],
    ]
    memory = record.get("memory_mb") or {}
    heavy = list((record.get("service_heavy_imports_ms") or {}).items())[:8]
    return [
        "## Cold start", "",
        "Every round is a new process; the file cache is warm.", "",
        *table(["", "seconds"], rows),
        f"Memory when ready: {spreaded(memory.get('rss'))} MB RSS, "
        f"{spreaded(memory.get('pss'))} MB PSS. Its costliest imports: "
        + (", ".join(f"{name} {ms:,.0f} ms" for name, ms in heavy) or NOTHING)
        + " (profiled, over all its processes). Training packages: "
        + (", ".join(record.get("service_training_packages") or []) or "none") + ".", "",
        *image("cold", "Where a cold start's time goes", images),
    ]  # fmt: skip
