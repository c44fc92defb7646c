"""The page as one text: equal records, equal page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.report import explaining, processes, serving
from benchmarks.report.markdown import table
from benchmarks.report.records import NAMES, Records, at
from benchmarks.report.targets import targets

Section = Callable[[Mapping[str, Any], Mapping[str, str]], list[str]]
SECTIONS: Mapping[str, Section] = {
    "predict": lambda r, i: serving.predictions(r, i) + serving.nothing(r),
    "explain": explaining.explanations,
    "variants": explaining.variants,
    "overload": serving.overload,
    "scale": processes.scale,
    "codec": processes.codec,
    "cold": processes.cold,
    "probes": explaining.probes,
    "bulk": explaining.bulk,
}
QUIET_LOAD, QUIET_SHARE = 1.0, 0.1
VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


def page(records: Records, images: Mapping[str, str]) -> str:
    """Markdown. images: name of a record -> link of its figure."""
    lines = [
        "# Performance", "",
        "Written by `python -m benchmarks.report` from the records of `make bench`; don't edit it. "
        "Everything runs on two cores, clients included. Other programs on the machine disturb "
        "wall times, so CPU-seconds stand beside them and ratios are taken round by round.", "",
        *_busy(records),
        "## Targets", "",
    ]  # fmt: skip
    found = targets(records)
    lines += table(
        ["what", "wanted", "found", ""],
        [[t.what, t.wanted, t.found, VERDICTS[t.met]] for t in found],
    )
    met = sum(t.met is True for t in found)
    open_ = sum(t.met is None for t in found)
    lines += [f"{met} met, {len(found) - met - open_} missed, {open_} not measured.", ""]
    for name, section in SECTIONS.items():
        if name in records:
            lines += section(records[name], images)
    lines += _made(records)
    return "\n".join(lines).rstrip() + "\n"


def _busy(records: Records) -> list[str]:
    """A warning where a record was made on a machine that had other work."""
    names = [
        name
        for name, record in records.items()
        if (at(record, "conditions", "load_average") or 0) > QUIET_LOAD
        or (at(record, "conditions", "others_cpu_share") or 0) > QUIET_SHARE
    ]
    if not names:
        return []
    return [
        f"**Not made on a quiet machine** ({', '.join(names)}): wall times, rates and latencies "
        "below say little; CPU-seconds say more.", "",
    ]  # fmt: skip


def _made(records: Records) -> list[str]:
    lines = ["## How this was made", "", "```bash", "make bench", "```", ""]
    rows = []
    for name in NAMES:
        if name in records:
            record = records[name]
            about = record.get("conditions") or {}
            rows.append(
                [
                    f"`{record['made_by']}`", record["when"][:10], f"`{record['version']}`",
                    f"{record['machine']}" + (f", {about['cpu']}" if about.get("cpu") else ""),
                    about.get("load_average", "–"),
                    f"{100 * about['others_cpu_share']:.0f} %"
                    if "others_cpu_share" in about else "–",
                ]
            )  # fmt: skip
    lines += table(
        ["command", "date", "commit", "machine", "load before", "taken by other programs"], rows
    )
    return lines
