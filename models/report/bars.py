"""Relevance bars: signed, centred on zero, with their interval, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from wire.explanation import FeatureFinding

_HALF = 100.0


def reach(features: Iterable[FeatureFinding]) -> float:
    """Half width of the axis in logits, the same for every bar: the largest end of any of them."""
    ends = [0.05]
    for feature in features:
        ends += [abs(feature.relevance.value), *map(abs, feature.relevance.ci or ())]
    return max(ends)


def relevance_bar(feature: FeatureFinding, half_width: float) -> Markup:
    """One bar; its label says the same in words."""
    scale = _HALF / half_width
    x = feature.relevance.value * scale
    side = "for" if x >= 0 else "against"
    parts = [
        f'<rect x="{min(x, 0):.1f}" y="5" width="{abs(x):.1f}" height="8" class="{side}"/>',
        '<line x1="0" x2="0" y1="0" y2="18" class="zero"/>',
    ]
    if feature.relevance.ci:
        low, high = (end * scale for end in feature.relevance.ci)
        parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="9" y2="9" class="ci"/>')
        parts += [
            f'<line x1="{end:.1f}" x2="{end:.1f}" y1="6" y2="12" class="ci"/>'
            for end in (low, high)
        ]
    return Markup(
        '<svg class="relevance" viewBox="-100 0 200 18" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>'
    ).format(relevance_words(feature), Markup("".join(parts)))  # noqa: S704  (numbers only)


def relevance_words(feature: FeatureFinding) -> str:
    """What the bar says, for those who do not see it."""
    value, ci = feature.relevance.value, feature.relevance.ci
    if ci is None:
        return f"{signed(value)} logits, no interval"
    side = "for" if ci[0] > 0 else "against" if ci[1] < 0 else "not clearly for or against"
    return f"{signed(value)} logits, interval {signed(ci[0])} to {signed(ci[1])}: {side} the class"


def signed(value: float) -> str:
    """Two decimals with a true minus sign; a bare zero has no sign."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")
