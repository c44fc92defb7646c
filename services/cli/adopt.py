"""lesionlens adopt: a classifier that was trained elsewhere becomes a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.errors import InputError
from services.cli.train import StageLines

if TYPE_CHECKING:
    from services.training.adopt import AdoptResult, Place


@click.command(
    epilog="Example:  lesionlens adopt net.onnx --list-taps &&  lesionlens adopt net.onnx "
    "--cohort build/cohort --taps early=/layer1/Relu_output_0,late=/layer4/Relu_output_0 "
    "--out build/adopted"
)
@click.argument(
    "model", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--module",
    metavar="PACKAGE.MODULE:FACTORY",
    help="A torch module in place of MODEL; the factory is imported and called here.",
)
@click.option("--arguments", default="{}", help="Of the factory, a JSON object.")
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of the module: .safetensors, or .pt/.pth that holds nothing but tensors.",
)
@click.option(
    "--cohort",
    type=click.Path(exists=True, path_type=Path),
    help="Folder with cohort.json: its lesions fit probes, calibrate and evaluate.",
)
@click.option(
    "--taps",
    help="Activations that probes may read, in the network's order: NAME=VALUE or VALUE, commas "
    "between. VALUE is a graph value or a module's path, as --list-taps shows them.",
)
@click.option("--list-taps", is_flag=True, help="Show what can be a tap, and stop.")
@click.option(
    "--logits", help="Value or output to classify by. Default: 'logits', or the only one."
)
@click.option(
    "--layout",
    help="Axes of the network's input: b (batch) and p (phases), x, y, z (R, A, S) in its order. "
    "Default: bpxyz, or bxyzp where that alone fits.",
)
@click.option("--classes", help="Classes in the order of the network's outputs, commas between.")
@click.option(
    "--vocabulary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Classes, phases and features as JSON. Default: the cohort's, in its order.",
)
@click.option(
    "--preprocessing",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the network was trained on, as JSON: "
    '{"tensor_voxels": 32, "base_voxels": 32, "intensity": "zscore"}.',
)
@click.option("--phases", type=click.IntRange(1), default=3, show_default=True,
              help="Input channels, for --list-taps without a cohort.")  # fmt: skip
@click.option("--passes", type=click.IntRange(1), default=25, show_default=True,
              help="Stochastic passes of a labelled or validation lesion.")  # fmt: skip
@click.option("--pairs", type=click.IntRange(0), default=20, show_default=True,
              help="Lesions with and without each feature, for its relevance.")  # fmt: skip
@click.option("--trust/--no-trust", default=True, show_default=True,
              help="Measure how far maps can be trusted: hundreds of gradients.")  # fmt: skip
@click.option("--reference-passes", type=click.IntRange(1), default=8, show_default=True,
              help="The same of the others.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--store/--no-store",
    default=True,
    show_default=True,
    help="Register the bundle in the BentoML model store, where servers find it by name.",
)
@click.option(
    "--out",
    default=Path("build/adopted"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Output folder: bundle/ is the result.",
)
def adopt(
    model: Path | None,
    module: str | None,
    arguments: str,
    weights: Path | None,
    cohort: Path | None,
    taps: str | None,
    list_taps: bool,
    logits: str | None,
    layout: str | None,
    classes: str | None,
    vocabulary: Path | None,
    preprocessing: Path | None,
    phases: int,
    passes: int,
    reference_passes: int,
    pairs: int,
    trust: bool,
    seed: int,
    store: bool,
    out: Path,
) -> None:
    """Wrap a classifier that was trained elsewhere: probes, explanations and serving for it.

    MODEL is an ONNX file with one image input [batch, phases, x, y, z] and one output a class,
    exported in evaluation mode with a dynamic batch axis. Its logits, activations and input
    gradients become a bundle like any other; the network itself is not changed.

    \b
    What you declare                     and where the default fails
      taps      which activations        there is none; --list-taps shows what there is
      classes   the order of outputs     the network's order is not the cohort's
      layout    the order of axes        trained on z, y, x: bpzyx
      preprocessing                      another size, or intensities scaled otherwise

    Gradients are made by a rule for each operator; where one has none, the node is named, and no
    bundle is written. The classifier may have been trained on lesions of the cohort: then the
    figures in the model card are too good, and nobody but you can know.
    """
    if (model is None) == (module is None):
        raise click.UsageError("name an ONNX file or --module, one of them")
    # Here, so that --help does not wait for torch.
    from models.cohort.format import read_cohort
    from services.training import adopt as training
    from services.training.foreign.module import read_arguments

    spec = training.read_preprocessing(preprocessing) if preprocessing else None
    config = training.ADOPTED.model_copy(
        update={
            "passes": passes,
            "reference_passes": reference_passes,
            "pairs": pairs,
            "trust": trust,
        }
        | ({"preprocessing": spec} if spec else {})
    )
    source = training.Classifier(model, module, read_arguments(arguments), weights, logits, layout)
    if list_taps:
        if cohort is not None:
            phases = len(read_cohort(cohort).file.phases)
        edge = config.preprocessing.tensor_voxels
        _show(training.list_taps(source, phases, edge))
        return
    if cohort is None or not taps:
        what = "cohort" if cohort is None else "taps"
        raise InputError("is needed", field=f"--{what}", expected="see lesionlens adopt --help")
    result = training.adopt(
        source,
        cohort,
        _split(taps),
        out,
        vocabulary=vocabulary,
        classes=_split(classes or ""),
        config=config,
        seed=seed,
        progress=StageLines(sys.stdout.isatty()),
        store=store,
    )
    _summary(result)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _show(places: list[Place]) -> None:
    """A line a value; those that everything flows through are the better taps."""
    if not places:
        raise InputError("no value has the shape of a tap", field="model",
                         expected="[batch, D] or [batch, D, x, y, z]")  # fmt: skip
    wide = max(len(p.name) for p in places)
    kind = max(len(p.kind) for p in places)
    for p in places:
        shape = "[" + ", ".join("batch" if d is None else str(d) for d in p.shape) + "]"
        beside = "" if p.whole is not False else "  (a part of the network goes around it)"
        click.echo(f"{p.name:<{wide}}  {p.kind:<{kind}}  {shape}{beside}")


def _summary(result: AdoptResult) -> None:
    low, high = result.test_ci
    click.echo(
        f"\nbundle       {result.bundle}  ({result.hash})\n"
        + (f"model store  {result.tag}\n" if result.tag else "")
        + f"taps         {', '.join(f'{t} {d}' for t, d in result.taps.items())}; probes read "
        f"{'+'.join(result.probe_taps)}\n"
        f"accuracy     validation {result.validation_accuracy:.3f}, "
        f"test {result.test_accuracy:.3f} (95 % {low:.3f} to {high:.3f}, n = {result.n_test})\n"
        f"next         lesionlens bundle describe {result.bundle}"
    )
