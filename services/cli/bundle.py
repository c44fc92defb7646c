"""lesionlens bundle: look at model bundles, and say which one is in production."""

from __future__ import annotations

import json

import click

from models.bundle.read import Bundle, read_bundle
from services.cli import bundle_states, bundle_variants
from services.common.configured import read_settings
from services.common.store import resolve

WHERE = (
    "BUNDLE is a bundle's folder, or 'lesionlens:production', 'lesionlens:latest' or "
    "'lesionlens:<hash>' from the model store; left out, it is what the servers would use."
)


@click.group()
def bundle() -> None:
    """Verify and describe model bundles; list, promote, roll back and archive stored ones; make
    faster variants.

    A bundle is a folder with two ONNX graphs, the feature probes, the reference activations, a
    model card, and a manifest with a checksum of every file. It is the only thing that passes from
    training to serving.
    """


@bundle.command(epilog=WHERE)
@click.argument("bundle", required=False)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def verify(bundle: str | None, threads: int) -> None:
    """Check a bundle as a server does: schema, every checksum, and the numbers it computes.

    Exit code 0 and one line of figures, or exit code 2 and one line that says what is wrong.
    """
    from models.bundle.runtime import OnnxModel

    path = resolve(bundle, read_settings())
    opened = read_bundle(path)
    errors = OnnxModel(opened, threads).check_parity()
    worst = max(errors, key=lambda k: errors[k])
    click.echo(
        f"{opened.hash}  {len(opened.manifest.files)} files intact, {len(errors)} outputs agree "
        f"with what training stored (worst: {worst}, {errors[worst]:.1e})"
    )


@bundle.command(epilog=WHERE)
@click.argument("bundle", required=False)
@click.option("--card", is_flag=True, help="The whole model card, Markdown.")
@click.option("--json", "as_json", is_flag=True, help="The manifest, for programs.")
def describe(bundle: str | None, card: bool, as_json: bool) -> None:
    """Say what a bundle is, what it was trained on and how well it does."""
    path = resolve(bundle, read_settings())
    opened = read_bundle(path)
    if as_json:
        click.echo(opened.manifest.model_dump_json(indent=2))
    elif card:
        click.echo((path / "card.md").read_text("utf-8"), nl=False)
    else:
        click.echo(_description(opened))


for command in (
    bundle_states.list_,
    bundle_states.promote,
    bundle_states.rollback,
    bundle_states.archive,
    bundle_states.history,
    bundle_variants.variant,
    bundle_variants.variants,
):
    bundle.add_command(command)


def _description(opened: Bundle) -> str:
    m = opened.manifest
    lines = [
        ("name", m.name),
        ("hash", m.hash),
        ("network", f"{m.architecture}; taps " + ", ".join(f"{t} {d}" for t, d in m.taps.items())),
        ("trained on", m.trained_on + (" (synthetic phantoms)" if m.synthetic else "")),
        ("classes", ", ".join(m.classes)),
        ("phases", ", ".join(m.phases)),
        ("features", f"{len(m.features)}, read at {' + '.join(m.probe_taps)}"),
        ("reference", f"{len(opened.reference.lesion_ids)} training lesions"),
    ]
    evaluation = json.loads((opened.path / "evaluation.json").read_text("utf-8"))
    lines += [(label, text) for label, text in _figures(evaluation) if text]
    wide = max(len(label) for label, _ in lines) + 2
    table = [
        f"  {name:<{wide + 28}}{kind:<10}"
        + ("undefined" if q.auroc is None else f"{q.auroc:.3f}")
        + (f"  ({q.ci[0]:.3f} to {q.ci[1]:.3f})" if q.ci else "")
        for name, kind, q in zip(
            m.features, opened.probes.kinds, opened.probes.quality, strict=True
        )
    ]
    split = opened.probes.quality[0].split if opened.probes.quality else ""
    return "\n".join(
        [f"{label:<{wide}}{text}" for label, text in lines]
        + [f"features and their AUROC ({split}), 95 % interval:", *table]
        + ["Research software, not a medical device."]
    )


def _figures(evaluation: dict) -> list[tuple[str, str]]:
    """Accuracy and feature detection in a line each; empty where they were not measured."""
    rows = []
    c = evaluation.get("classifier")
    if c:
        low, high = c["ci"]
        rows.append(
            ("accuracy", f"{c['accuracy']:.3f} ({low:.3f} to {high:.3f}), {c['split']}, n={c['n']}")
        )
    f = evaluation.get("features")
    if f and f["micro_ppv"] is not None and f["micro_sensitivity"] is not None:
        rows.append(
            (
                "detection",
                f"PPV {f['micro_ppv']:.3f}, sensitivity {f['micro_sensitivity']:.3f}, {f['split']}",
            )
        )
    return rows
