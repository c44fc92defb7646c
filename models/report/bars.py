"""The influence bar: signed, centred on zero, with its interval, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from wire.explanation import FeatureFinding

_HALF = 100.0


def reach(features: Iterable[FeatureFinding]) -> float:
    """Half width of the axis in logits, the same for every bar: the largest end of any of them."""
    ends = [0.05]
    for feature in features:
        ends += [abs(feature.influence.value), *map(abs, feature.influence.ci or ())]
    return max(ends)


def influence_bar(feature: FeatureFinding, half_width: float) -> Markup:
    """One bar; its label says the same in words."""
    scale = _HALF / half_width
    x = feature.influence.value * scale
    side = "for" if x >= 0 else "against"
    parts = [
        f'<rect x="{min(x, 0):.1f}" y="5" width="{abs(x):.1f}" height="8" class="{side}"/>',
        '<line x1="0" x2="0" y1="0" y2="18" class="zero"/>',
    ]
    if feature.influence.ci:
        low, high = (end * scale for end in feature.influence.ci)
        parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="9" y2="9" class="ci"/>')
        parts += [
            f'<line x1="{end:.1f}" x2="{end:.1f}" y1="6" y2="12" class="ci"/>'
            for end in (low, high)
        ]
    return Markup(
        '<svg class="influence" viewBox="-100 0 200 18" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>'
    ).format(influence_words(feature), Markup("".join(parts)))  # noqa: S704  (numbers only)


def influence_words(feature: FeatureFinding) -> str:
    """What the bar says, for those who do not see it."""
    value, ci = feature.influence.value, feature.influence.ci
    if ci is None:
        return f"{signed(value)} logits, no interval"
    side = "for" if ci[0] > 0 else "against" if ci[1] < 0 else "not clearly for or against"
    return f"{signed(value)} logits, interval {signed(ci[0])} to {signed(ci[1])}: {side} the class"


def signed(value: float) -> str:
    """Two decimals with a true minus sign; a bare zero has no sign."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")
