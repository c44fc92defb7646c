"""The model card (Mitchell et al. 2019, arXiv 1810.03993), Markdown, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.bundle.parts import BundleParts
from models.voi import Preprocessing

LIMITS = [
    "It knows only the classes below. A lesion of any other kind still gets one of them; the "
    "out-of-distribution score warns of some such lesions, not of all.",
    "It was never compared with radiologists, and no clinical benefit was shown.",
    "A feature that is found is a statement about the network's activations, learned from few "
    "labelled lesions. It may follow the class rather than the image.",
    "The lesion's box is given by the user; finding lesions is not part of the task.",
]


def card(parts: BundleParts) -> str:
    """The card of a bundle about to be written. `parts.evaluation` supplies the figures."""
    v, spec = parts.vocabulary, parts.preprocessing
    limits = list(LIMITS)
    if parts.synthetic:
        limits.insert(
            0,
            "All training and test lesions are synthetic phantoms. The figures say how well the "
            "software works on phantoms, and nothing about patients.",
        )
    data = "**synthetic** phantom lesions" if parts.synthetic else "imported lesions"
    blocks = [
        f"# {parts.name}",
        "Research software, not a medical device.",
        "## What it does\n\n"
        f"A convolutional network (`{parts.architecture}`) tells {len(v.classes)} classes of liver "
        f"lesion apart on {len(v.phases)} contrast phases of {_scan(parts.modality)} "
        f"({', '.join(p.label for p in v.phases)}), and probes on its activations report "
        f"{len(v.features)} radiological features." + _whose(parts),
        "## Intended use\n\n"
        "Research on explanations of image classifiers. Not for diagnosis, treatment or triage of "
        "patients.",
        f"## Training data\n\n{_used_for(parts)}Cohort `{parts.trained_on}`: {data}.\n\n"
        + _record(parts.training),
        "## Input\n\n"
        f"A tensor [{len(v.phases)}, {spec.tensor_voxels}, {spec.tensor_voxels}, "
        f"{spec.tensor_voxels}]: one isotropic scale in millimetres around the lesion's box "
        f"(field of view {spec.context:g} times its longest edge, at least "
        f"{spec.min_fov_mm:g} mm). {_intensities(spec)} {_optional(parts)}",
        "## Classification\n\n" + _classification(parts.evaluation.get("classifier"), v.class_ids),
        "## Features\n\n" + _features(parts),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in limits),
        "## Method\n\n"
        "Wang, Hamm et al. 2019, part II (doi 10.1007/s00330-019-06214-8): features from the "
        "activations of a trained network. Probes are a shrunk Gaussian density ratio and an L2 "
        "logistic regression, calibrated on leave-one-lesion-out scores. Class probabilities are "
        f"temperature-scaled (T = {parts.temperature:.3f}).",
    ]
    return "\n\n".join(blocks) + "\n"


def _scan(modality: str) -> str:
    return {"MR": "an MRI", "CT": "a CT"}[modality]


def _whose(parts: BundleParts) -> str:
    if parts.origin == "trained":
        return ""
    return (
        "\n\nThe classifier was trained elsewhere and adopted as it was: what it was trained on, "
        "and how, is known only as far as whoever brought it said so."
    )


def _used_for(parts: BundleParts) -> str:
    """What the cohort was used for, where that was not everything."""
    if parts.origin == "trained":
        return ""
    return (
        "The cohort below fitted the probes, the calibration and the out-of-distribution score, "
        "not the classifier. If the classifier saw lesions of it before, the figures on this card "
        "are too good.\n\n"
    )


def _intensities(spec: Preprocessing) -> str:
    if spec.intensity == "parenchyma":
        return "All phases are divided by one parenchyma median."
    return f"Intensities are scaled by `{spec.intensity}`."


def _optional(parts: BundleParts) -> str:
    if not parts.optional_phases:
        return "Every phase is needed."
    names = ", ".join(f"`{phase}`" for phase in parts.optional_phases)
    costs = [
        f"without {name.replace('+', ' and ')} {_with(f['accuracy'], f['ci'])}"
        for name, f in parts.evaluation.get("classifier_missing", {}).items()
    ]
    text = f"May be missing, since the network was trained with phases left out: {names}."
    return f"{text} Test accuracy (95 %): {'; '.join(costs)}." if costs else text


def _record(training: Mapping[str, Any]) -> str:
    plain = {k: x for k, x in training.items() if isinstance(x, (str, int, float))}
    if not plain:
        return "No record of the training run was kept."
    return _table(["setting", "value"], [[f"`{k}`", str(x)] for k, x in sorted(plain.items())])


def _classification(figures: Mapping[str, Any] | None, classes: Sequence[str]) -> str:
    if not figures:
        return "Not measured."
    lines = [
        f"Measured on {figures.get('n', '?')} lesions ({figures.get('split', 'split unknown')}), "
        "95 % intervals in brackets.",
        _table(
            ["", "value"],
            [
                ["accuracy", _with(figures.get("accuracy"), figures.get("ci"))],
                ["macro AUROC", _with(figures.get("macro_auroc"), figures.get("macro_auroc_ci"))],
                ["expected calibration error", _figure(figures.get("ece"))],
            ],
        ),
    ]
    per_class = figures.get("per_class") or {}
    rows = [
        [
            f"`{c}`",
            str(per_class[c].get("n", "")),
            _with(per_class[c].get("sensitivity"), per_class[c].get("sensitivity_ci")),
            _figure(per_class[c].get("ppv")),
            _figure(per_class[c].get("auroc")),
        ]
        for c in classes
        if c in per_class
    ]
    if rows:
        lines.append(_table(["class", "n", "sensitivity", "PPV", "AUROC"], rows))
    return "\n\n".join(lines)


def _features(parts: BundleParts) -> str:
    figures = parts.evaluation.get("features") or {}
    per_feature = figures.get("per_feature") or {}
    lines = []
    if figures:
        lines.append(
            f"Measured on {figures.get('n', '?')} lesions "
            f"({figures.get('split', 'split unknown')}): micro-averaged PPV "
            f"{_with(figures.get('micro_ppv'), figures.get('micro_ppv_ci'))}, sensitivity "
            f"{_with(figures.get('micro_sensitivity'), figures.get('micro_sensitivity_ci'))}, "
            f"macro AUROC {_with(figures.get('macro_auroc'), figures.get('macro_auroc_ci'))}."
        )
    lines.append("Quality as the probes carry it (AUROC, with the split it was measured on):")
    rows = []
    for name, kind, quality in zip(
        parts.probes.features, parts.probes.kinds, parts.probes.quality, strict=True
    ):
        own = per_feature.get(name) or {}
        rows.append(
            [
                f"`{name}`",
                kind,
                _with(quality.auroc, quality.ci),
                f"{quality.n_present} / {quality.n_absent}",
                quality.split,
                _figure(own.get("ppv")),
                _figure(own.get("sensitivity")),
            ]
        )
    head = ["feature", "probe", "AUROC", "present / absent", "split", "PPV", "sensitivity"]
    return "\n\n".join([*lines, _table(head, rows)])


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _with(value: float | None, ci: Sequence[float] | None) -> str:
    return _figure(value) + (f" ({ci[0]:.3f} to {ci[1]:.3f})" if ci else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
