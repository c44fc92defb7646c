"""Sections on what comes of a lesion: explanations, variants of a bundle, detectors, cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        *_localisation(record.get("localisation") or {}),
        *image("explain", "Cost of explanations", images),
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


def _localisation(found: Mapping[str, Any]) -> list[str]:
    """Maps of few steps against true masks, and less those of `against` steps, by kind of map."""
    rows = []
    for kind in ("class", "feature"):
        for steps, entry in (found.get(kind) or {}).items():
            cells = [_interval(entry.get(k)) for k in ("pointing", "auprc", "auprc_less")]
            rows.append([f"{kind}, {steps} steps", str(entry.get("n", NOTHING)), *cells])
    if not rows:
        return []
    head = ["maps", "n", "pointing", "AUPRC", f"AUPRC less that of {found.get('against')} steps"]
    return ["Maps against true masks, with 95 % intervals:", "", *table(head, rows)]


def _interval(found: Any) -> str:
    """'value (low to high)' of {'value', 'ci'}."""
    if not isinstance(found, Mapping) or found.get("value") is None:
        return NOTHING
    ci = found.get("ci")
    tail = f" ({number(ci[0])} to {number(ci[1])})" if ci else ""
    return f"{number(found['value'])}{tail}"


def variants(record: Mapping[str, Any], images: Images) -> list[str]:
    """Every kind of variant beside fp32, accepted or not, and what it was measured to lose."""
    lines = [
        "## Variants of a bundle", "",
        "Made and measured on validation lesions as `lesionlens bundle variant` does; a variant "
        "that loses more than its budget is refused, and timed all the same.", "",
    ]  # fmt: skip
    rows = []
    for name, found in (record.get("bundles") or {}).items():
        for kind, cost in found["cpu_ms"].items():
            measured = at(found, "records", kind, "measured")
            verdict = {True: "yes", False: "no", None: NOTHING}[at(found, "accepted", kind)]
            rows.append(
                [
                    f"{name}, {kind}", verdict, spreaded(cost),
                    spreaded(at(found, "speedup_vs_fp32", kind)),
                    number(at(measured, "accuracy", "loss")),
                    number(at(measured, "probe_auroc", "loss")),
                    number(at(measured, "maps", "mean")),
                ]
            )  # fmt: skip
    head = ["", "accepted", "CPU a row, ms", "over fp32", "accuracy lost", "AUROC lost", "maps' r"]
    lines += table(head, rows)
    for name, found in (record.get("bundles") or {}).items():
        for kind, kept in (found.get("records") or {}).items():
            lines += [f"- {name}, {kind} is refused: {why}" for why in kept.get("reasons", [])]
    return [*lines, "", *image("variants", "Variants: cost and accuracy", images)]


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
