"""Sections on everything beside predictions: explanations, variants, scale, bodies, cold starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.plots.style import network_title
from benchmarks.report.markdown import NOTHING, image, number, spreaded, table
from benchmarks.report.records import at, middle

Images = Mapping[str, str]


def explanations(record: Mapping[str, Any], images: Images) -> list[str]:
    rows = [
        [name.replace("_", " "), spreaded(value)]
        for name, value in (record.get("ratios") or {}).items()
    ]
    agreement = record.get("agreement") or {}
    rows += [
        ["a card, p95", f"{number(record.get('card_p95_s'))} s"],
        ["maps against Captum's, relative L2: median", number(agreement.get("median"))],
        ["the same, 95th percentile", number(agreement.get("q95"))],
    ]
    return [
        "## Explanations", "",
        "The same attribution work in the bundle's graphs and in torch with Captum, in turns; and "
        "what is delivered, each way at its best.", "",
        *table(["", "found"], rows),
        *_sweep(record.get("sweep") or {}),
        *image("explain", "Cost of explanations", images),
        *image("sweep", "Cost against passes, features, steps and lesions", images),
    ]  # fmt: skip


def _sweep(found: Mapping[str, Any]) -> list[str]:
    """Straight lines: name -> fixed_s, each_s, r2, and the amounts that were tried."""
    rows = [
        [
            name, number(middle(line.get("each_s"))), number(middle(line.get("fixed_s"))),
            ", ".join(str(v) for v in line.get("amount", [])) or NOTHING,
            number(middle(line.get("r2"))),
        ]
        for name, line in found.items()
        if isinstance(line, Mapping)
    ]  # fmt: skip
    if not rows:
        return []
    head = ["one more of", "CPU, s", "for none, s", "tried", "R²"]
    return ["Cost against one quantity at a time, a straight line through it:", "",
            *table(head, rows)]  # fmt: skip


def variants(record: Mapping[str, Any], images: Images) -> list[str]:
    lines = ["## Variants of a bundle", ""]
    ratios = record.get("ratios") or {}
    lines += table(
        ["", "found"], [[name.replace("_", " "), spreaded(v)] for name, v in ratios.items()]
    )
    lines += _flat("variants", record.get("variants"), "By variant:")
    return lines + image("variants", "Variants: cost and accuracy", images)


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


def probes(record: Mapping[str, Any], images: Images) -> list[str]:
    rows = [[f"`{n}`", number(v)] for n, v in record["cpu_ms_per_lesion"].items()]
    return [
        "## Detectors of features", "",
        "CPU of one lesion, sizes as published; the published loop beside the closed form that "
        "gives the same numbers.", "",
        *table(["detector", "CPU, ms"], rows),
        *image("probes", "Cost of detectors", images),
    ]  # fmt: skip


def bulk(record: Mapping[str, Any], images: Images) -> list[str]:
    ways = {"here": record.get("local"), "on a server": record.get("server")}
    return [
        "## Cohorts", "",
        *_flat("", ways, f"`lesionlens explain --cohort` with {record.get('processes')} processes; "
               "how the figures are meant stands in `benchmarks/bulk.py`:"),
        *image("bulk", "A cohort explained in bulk", images),
    ]  # fmt: skip


def _flat(name: str, found: Any, title: str) -> list[str]:
    """Rows of plain figures by key, whatever they are called; lists and texts are left out."""
    if not isinstance(found, Mapping):
        return []
    rows = []
    for key, row in found.items():
        for what, value in row.items() if isinstance(row, Mapping) else [("", row)]:
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            if plain or at(value if isinstance(value, Mapping) else None, "median") is not None:
                label = " ".join(part for part in (str(key), str(what)) if part)
                rows.append([label.replace("_", " "), spreaded(value)])
    return [title, "", *table([name, "found"], rows)] if rows else []
