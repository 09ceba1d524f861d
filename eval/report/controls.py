"""The controls of a gallery: what all its cards show, and in which order."""

from __future__ import annotations

import html
from collections.abc import Sequence

from data.dataset import SegmentationDataset

SORTS = {
    "gain": "largest gain",
    "loss": "largest loss",
    "weak": "weakest network",
    "strong": "strongest network",
    "harm": "most harmed by the CRF",
    "name": "name",
}
"""By value of the form: what gallery.js sorts the cards by."""


def controls(
    layers: Sequence[str], pair: tuple[str, str], split: SegmentationDataset, prefix: str
) -> str:
    """The choices for all cards at once."""
    both = [(layer, layer) for layer in [*layers, "image"]]
    classes = [("", "all")] + [(str(k), name) for k, name in enumerate(split.classes)]
    views = [("labels", "labels"), ("difference", "right and wrong")]
    zooms = [("whole", "whole image"), ("window", "where they differ most")]
    chips = "".join(
        f'<li><i style="background:rgb({r},{g},{b})"></i>{html.escape(name)}</li>'
        for name, (r, g, b) in zip(split.classes, split.palette.tolist(), strict=False)
    )
    return (
        '<form class="controls" aria-label="Gallery">'
        + _choice("left", "Left", both, pair[0], prefix)
        + _choice("right", "Right", both, pair[1], prefix)
        + _choice("sort", "Sort by", list(SORTS.items()), "gain", prefix)
        + _choice("class", "Class", classes, "", prefix)
        + _choice("view", "Show", views, "labels", prefix)
        + _choice("zoom", "Zoom", zooms, "whole", prefix)
        + f'<label for="{prefix}-opacity">Opacity<input type="range" name="opacity" '
        f'id="{prefix}-opacity" min="0" max="100" value="55"></label>'
        f'<label class="check" for="{prefix}-outline"><input type="checkbox" name="outline" '
        f'id="{prefix}-outline" checked>Outlines</label>'
        '<output class="count" aria-live="polite"></output></form>'
        f'<ul class="palette">{chips}</ul>'
        '<p class="key" hidden><span><i class="gained"></i>gained: wrong in the left arm only'
        '</span><span><i class="lost"></i>lost: wrong in the right arm only</span>'
        '<span><i class="wrong"></i>wrong in both</span></p>'
        "<noscript><p>The gallery needs JavaScript; it is in the page itself.</p></noscript>"
    )


def _choice(
    name: str, label: str, options: Sequence[tuple[str, str]], chosen: str, prefix: str
) -> str:
    items = "".join(
        f'<option value="{html.escape(value)}"{" selected" if value == chosen else ""}>'
        f"{html.escape(text)}</option>"
        for value, text in options
    )
    return (
        f'<label for="{prefix}-{name}">{label}'
        f'<select name="{name}" id="{prefix}-{name}">{items}</select></label>'
    )
