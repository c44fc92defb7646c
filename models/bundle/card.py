"""The model card (Mitchell et al. 2019, arXiv 1810.03993), Markdown, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.bundle.card_reasons import reasons
from models.bundle.markdown import figure, table, with_interval
from models.bundle.parts import BundleParts
from models.voi import Preprocessing

LIMITS = [
    "It knows only the classes below. A lesion of any other kind still gets one of them; the "
    "out-of-distribution score warns of some such lesions, not of all.",
    "It was never compared with radiologists, and no clinical benefit was shown.",
    "A feature that is found is a statement about the network's activations and the image, learned "
    "from few labelled lesions. It may follow the class rather than the image.",
    "The review flag was set on validation lesions of the same cohort. Lesions of another kind or "
    "from another scanner may be wrong without a flag.",
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
        "## Reasons\n\n" + reasons(parts),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in limits),
        "## Method\n\n"
        "Wang, Hamm et al. 2019, part II (doi 10.1007/s00330-019-06214-8): features from the "
        "activations of a trained network. Probes are linear in activations"
        + (" and image measurements" if parts.measurements else "")
        + f" ({', '.join(sorted(set(parts.probes.kinds)))} decide), calibrated on "
        "leave-one-lesion-out scores. Class probabilities are "
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
        f"without {name.replace('+', ' and ')} {with_interval(f['accuracy'], f['ci'])}"
        for name, f in parts.evaluation.get("classifier_missing", {}).items()
    ]
    text = f"May be missing, since the network was trained with phases left out: {names}."
    return f"{text} Test accuracy (95 %): {'; '.join(costs)}." if costs else text


def _record(training: Mapping[str, Any]) -> str:
    plain = {k: x for k, x in training.items() if isinstance(x, (str, int, float))}
    if not plain:
        return "No record of the training run was kept."
    return table(["setting", "value"], [[f"`{k}`", str(x)] for k, x in sorted(plain.items())])


def _classification(figures: Mapping[str, Any] | None, classes: Sequence[str]) -> str:
    if not figures:
        return "Not measured."
    lines = [
        f"Measured on {figures.get('n', '?')} lesions ({figures.get('split', 'split unknown')}), "
        "95 % intervals in brackets.",
        table(
            ["", "value"],
            [
                ["accuracy", with_interval(figures.get("accuracy"), figures.get("ci"))],
                [
                    "macro AUROC",
                    with_interval(figures.get("macro_auroc"), figures.get("macro_auroc_ci")),
                ],
                ["expected calibration error", figure(figures.get("ece"))],
            ],
        ),
    ]
    per_class = figures.get("per_class") or {}
    rows = [
        [
            f"`{c}`",
            str(per_class[c].get("n", "")),
            with_interval(per_class[c].get("sensitivity"), per_class[c].get("sensitivity_ci")),
            figure(per_class[c].get("ppv")),
            figure(per_class[c].get("auroc")),
        ]
        for c in classes
        if c in per_class
    ]
    if rows:
        lines.append(table(["class", "n", "sensitivity", "PPV", "AUROC"], rows))
    return "\n\n".join(lines)


def _features(parts: BundleParts) -> str:
    figures = parts.evaluation.get("features") or {}
    per_feature = figures.get("per_feature") or {}
    lines = []
    if figures:
        ppv, sensitivity, auroc = (
            with_interval(figures.get(name), figures.get(f"{name}_ci"))
            for name in ("micro_ppv", "micro_sensitivity", "macro_auroc")
        )
        lines.append(
            f"Measured on {figures.get('n', '?')} lesions "
            f"({figures.get('split', 'split unknown')}): micro-averaged PPV {ppv}, sensitivity "
            f"{sensitivity}, macro AUROC {auroc}."
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
                with_interval(quality.auroc, quality.ci),
                f"{quality.n_present} / {quality.n_absent}",
                quality.split,
                figure(own.get("ppv")),
                figure(own.get("sensitivity")),
            ]
        )
    head = ["feature", "probe", "AUROC", "present / absent", "split", "PPV", "sensitivity"]
    return "\n\n".join([*lines, table(head, rows)])
