"""SVG as strings: escaped elements, and axes that find their own round numbers.

Figures are inline SVG so that the page's style sheet colours them: lines and dots take
`currentColor` from a class such as `arm-joint`, text takes the page's text colour, and dark mode
needs no second rendering.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

Attributes = Mapping[str, "str | float"]


def element(name: str, attributes: Attributes, *children: str) -> str:
    """One element. Attribute values are escaped, children are markup already."""
    written = "".join(f' {key}="{_value(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{''.join(children)}</{name}>"


def escaped(content: str) -> str:
    """Text as a child of an element."""
    return html.escape(content)


def text(x: float, y: float, content: str, style: str = "", anchor: str = "start") -> str:
    """A line of text, vertically centred on y."""
    place: dict[str, str | float] = {"x": x, "y": y, "text-anchor": anchor, "class": style}
    return element("text", {**place, "dominant-baseline": "central"}, escaped(content))


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def dot(x: float, y: float, radius: float, style: str, hint: str) -> str:
    """A disc with a text that appears under the pointer."""
    return element(
        "circle",
        {"cx": x, "cy": y, "r": radius, "class": style},
        element("title", {}, escaped(hint)),
    )


def group(style: str, *children: str) -> str:
    """Elements that share a class."""
    return element("g", {"class": style}, *children)


def picture(width: float, height: float, label: str, *children: str) -> str:
    """The outer element; it scales to the width of its container.

    Args:
        width: of the drawing's own coordinates.
        height: of the drawing's own coordinates.
        label: what the picture shows, for readers who do not see it.
        children: the drawing.
    """
    box = f"0 0 {_value(width)} {_value(height)}"
    return element("svg", {"viewBox": box, "role": "img", "aria-label": label}, *children)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within low..high, about `count`."""
    step = _round_step((high - low) / count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the values and a share of it on both sides; never empty."""
    low, high = min(values), max(values)
    margin = share * (high - low) or 1.0
    return low - margin, high + margin


def spread_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions as little as needed for neighbours to be `gap` apart, keeping their order.

    Each pass pushes every overlapping pair apart by half of what it lacks.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    placed = [positions[index] for index in order]
    for _ in range(100):
        for i in range(len(placed) - 1):
            lack = gap - (placed[i + 1] - placed[i])
            if lack > 0:
                placed[i] -= lack / 2
                placed[i + 1] += lack / 2
    result = [0.0] * len(placed)
    for index, position in zip(order, placed, strict=True):
        result[index] = position
    return result


def number(value: float) -> str:
    """A tick's label: as short as it is exact to six digits, with a real minus."""
    return f"{value + 0.0:.6g}".replace("-", "−")


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _value(value: str | float) -> str:
    return html.escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
