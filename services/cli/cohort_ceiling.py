"""lesionlens cohort ceiling: how well the phantom's classes can be told at best."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option("--n", "count", type=click.IntRange(1), default=6000, show_default=True, metavar="N",
              help="Lesions to learn from.")  # fmt: skip
@click.option("--test", type=click.IntRange(1), default=3000, show_default=True, metavar="N",
              help="Lesions to score, of the next seed.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON to write.")
def ceiling(count: int, test: int, seed: int, out: Path | None) -> None:
    """Estimate the best accuracy that the phantom's classes allow.

    Gradient-boosted trees read the truth behind the lesions: the features alone, then their
    strengths, the base tissue and the form too. No images are made. A network that reads images
    should stay below the second figure; one that beats it has been tested on what it was trained
    on. Needs scikit-learn: pip install 'lesionlens[train]'.

    \b
    Example:
      lesionlens cohort ceiling --out build/ceiling.json
    """
    from rich.console import Console

    from models.cohort.phantom.ceiling import estimate

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(f"drawing {count + test} lesions, growing trees (about half a minute)"):
            found = estimate(count, test, seed)
    else:
        found = estimate(count, test, seed)
    click.echo(f"{count} lesions of seed {seed} to learn from, {test} of seed {seed + 1} to tell")
    words = {"features": "true features", "truth": "+ strengths, base, form"}
    for name, score in found.scores.items():
        low, high = score.ci
        click.echo(f"  {words[name]:<24} {score.accuracy:.3f}  (95 % CI {low:.3f} to {high:.3f})")
    click.echo("  sensitivity by class     " + ", ".join(
        f"{c} {v:.2f}" for c, v in found.scores["truth"].per_class.items()
    ))  # fmt: skip
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found.as_json(), indent=1) + "\n", "utf-8")
        click.echo(f"written to {out}")
