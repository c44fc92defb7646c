"""lesionlens bundle variant, variants: faster executions of a bundle, measured beforehand."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from models.bundle.read import read_bundle
from models.bundle.variant import KINDS, kind_of, records
from services.cli.train import StageLines
from services.common.configured import read_settings
from services.common.store import resolve
from wire.variant import Estimate, VariantRecord


@click.command()
@click.argument("bundle")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(list(KINDS)),
    multiple=True,
    required=True,
    help="How the classifier is run; may be given several times.",
)
@click.option(
    "--cohort",
    type=click.Path(path_type=Path),
    required=True,
    help="The cohort that the bundle was trained on: its training lesions calibrate, its "
    "validation lesions judge.",
)
@click.option("--passes", type=click.IntRange(1), help="Stochastic passes; default: as trained.")
@click.option("--seed", type=int, default=0, show_default=True)
def variant(
    bundle: str, kinds: tuple[str, ...], cohort: Path, passes: int | None, seed: int
) -> None:
    """Make a faster variant of a bundle and measure whether it may serve.

    \b
    int8           8-bit integers on onnxruntime
    openvino-fp32  the bundle's own file on OpenVINO
    openvino-bf16  the same in bfloat16
    openvino-int8  8-bit integers on OpenVINO

    A variant is accepted if, on the validation lesions, class accuracy falls by at most 0.5 points,
    the probes' macro AUROC by at most 0.01, and class maps correlate with those of fp32 at 0.98 or
    more. Estimates decide; their 95 % intervals are printed beside them. The outcome is kept in the
    bundle's folder, variants/KIND, refused or not; the bundle's hash stays. Serve it with
    LESIONLENS_PRECISION=KIND.

    BUNDLE is a folder, or 'lesionlens:latest', 'lesionlens:production', 'lesionlens:<hash>'.
    Exit code 1 where a variant was refused.
    """
    from services.training.variants import make_variant

    path = resolve(bundle, read_settings())
    refused = 0
    for kind in kinds:
        record = make_variant(
            path, kind, cohort, passes=passes, seed=seed, progress=StageLines(sys.stdout.isatty())
        )
        click.echo(report(record))
        refused += not record.accepted
    sys.exit(1 if refused else 0)


@click.command()
@click.argument("bundle", required=False)
@click.option("--json", "as_json", is_flag=True, help="The records, one a line, for programs.")
def variants(bundle: str | None, as_json: bool) -> None:
    """List the variants of a bundle that were measured, accepted or refused, with their figures."""
    opened = read_bundle(resolve(bundle, read_settings()))
    found = records(opened)
    if not found:
        click.echo(
            f"{opened.hash} has no variants; 'lesionlens bundle variant' makes one", err=True
        )
    for record in found:
        click.echo(record.model_dump_json() if as_json else report(record))


def report(record: VariantRecord) -> str:
    """A variant for people: outcome, what it costs, what it gains."""
    m, s, b = record.measured, record.speed, record.budget
    outcome = "accepted" if record.accepted else "refused: " + "; ".join(record.reasons)
    lines = [
        f"{record.kind}: {outcome}",
        f"  {kind_of(record.kind).says}; {record.runtime}; {record.machine}",
        f"  accuracy     {_estimate(m.accuracy)}, budget {b.accuracy_loss:g}, n = {m.n}",
        "  probe AUROC  "
        + (_estimate(m.probe_auroc) if m.probe_auroc else "undefined")
        + f", budget {b.probe_auroc_loss:g}",
        f"  class maps   correlation {m.maps.mean:.4f} (least {m.maps.least:.4f}, "
        f"{m.maps.drawn} of another class), budget {b.map_correlation:g}",
        f"  speed        {s.variant_ms:.3g} CPU-ms a row, fp32 {s.fp32_ms:.3g}: "
        f"{s.speedup[1]:.2f} times as fast ({s.speedup[0]:.2f} to {s.speedup[2]:.2f})",
    ]
    return "\n".join(lines)


def _estimate(e: Estimate) -> str:
    ci = f" (95 % {e.ci[0]:+.4f} to {e.ci[1]:+.4f})" if e.ci else ""
    return f"{e.fp32:.4f} -> {e.variant:.4f}, loss {e.loss:+.4f}{ci}"
