"""The view as HTML: pictures large, numbers beside them, the energy as a small curve."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from data.dataset import LabelSet
from eval.explore.refinery import Energy
from eval.explore.view import View
from eval.prediction_files import Picture

MINUS = "−"
SIZE = (300, 72)  # of the curve's own coordinates


def main(view: View, *, preview: bool = False) -> str:
    """The mask, large, and the numbers.

    Args:
        view: what to show.
        preview: it was made while a slider moved.
    """
    return (
        '<figure class="ex-large"><div class="ex-stack" tabindex="0">'
        f"{image(view.after, 'mask behind the CRF')}"
        f"{image(view.before, 'mask of the network alone', 'ex-over')}</div>"
        "<figcaption><span>behind the CRF</span><span>under the pointer: the network alone"
        f'</span></figcaption></figure><div class="ex-facts">{_facts(view, preview=preview)}</div>'
    )


def side(view: View, labels: LabelSet, label: str) -> str:
    """The smaller pictures, and what became of which label.

    Args:
        view: what to show.
        labels: names and colours.
        label: whose probability it holds.
    """
    truth = "" if view.truth is None else _figure(view.truth, "truth")
    return (
        '<div class="ex-side">'
        + _figure(view.probability, f"probability of <b>{html.escape(label)}</b>")
        + _figure(view.difference, f"changed: <b>{percent(view.changed)}</b> of the pixels")
        + truth
        + f"{_legend(view, labels)}{_moves(view, labels)}</div>"
    )


def error(message: str) -> str:
    """What went wrong, in words."""
    return f'<p class="ex-error" role="alert">{html.escape(message)}</p>'


def alone(before: Picture) -> str:
    """The network's own mask, where there is no other."""
    return (
        '<figure class="ex-large"><div class="ex-stack">'
        f"{image(before, 'mask of the network alone')}</div>"
        "<figcaption><span>the network alone</span></figcaption></figure>"
    )


def curve(energies: Sequence[Energy], resolution: int) -> str:
    """Relaxed and free energy per iteration, each on its own scale; the numbers at both ends.

    Args:
        energies: of q_0, ..., q_T.
        resolution: that they were computed at: 1 is full, 2 half.
    """
    if len(energies) < 2:
        return '<p class="ex-note">No iteration, no energy to show.</p>'
    rows = [
        _line("relaxed", "energy", [e.relaxed for e in energies]),
        _line("free", "KL + const.", [e.free for e in energies]),
    ]
    last = energies[-1].change
    settled = "settled" if last < 0.01 else "still moving"
    return (
        f'<div class="ex-energy">{"".join(rows)}'
        f'<p class="ex-note">nats per pixel at 1/{resolution} resolution, iterations 0 to '
        f"{len(energies) - 1}; last largest change of q {last:.2g}: {settled}</p></div>"
    )


def percent(share: float) -> str:
    """A share as a reader wants it."""
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "&lt; 0.1 %"


def image(picture: Picture, alternative: str, style: str = "") -> str:
    """An (H, W, 3) picture as an inline JPEG of full chroma resolution."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=90, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width, _ = picture.shape
    return (
        f'<img class="{style}" src="data:image/jpeg;base64,{data}" width="{width}" '
        f'height="{height}" alt="{html.escape(alternative)}">'
    )


def _figure(picture: Picture, caption: str) -> str:
    return f"<figure>{image(picture, '')}<figcaption>{caption}</figcaption></figure>"


def _facts(view: View, *, preview: bool) -> str:
    refined = view.refined
    facts = []
    if view.miou is not None:
        before, after = (100 * value for value in view.miou)
        gain = f"{after - before:+.1f}".replace("-", MINUS)
        style = "ex-better" if after >= before else "ex-worse"
        facts.append(
            _fact("mIoU of this image", f"{before:.1f} → {after:.1f} <i class={style}>{gain}</i>")
        )
    facts.append(_fact("changed", percent(view.changed)))
    facts.append(_fact("time", f"{1000 * refined.seconds:.0f} ms"))
    height, width = refined.grid
    what = "preview" if preview else "kernels reused" if refined.reused else "kernels built"
    facts.append(_fact("grid", f"{width} × {height} <small>{what}</small>"))
    return "".join(facts)


def _fact(name: str, value: str) -> str:
    return f"<div><span>{name}</span><strong>{value}</strong></div>"


def _legend(view: View, labels: LabelSet) -> str:
    items = "".join(
        f"<li>{_chip(i, labels)}<span>{percent(share)}</span></li>"
        for i, share in view.shares.items()
    )
    return f"<section><h3>labels</h3><ul>{items}</ul></section>"


def _moves(view: View, labels: LabelSet) -> str:
    items = "".join(
        f"<li>{_chip(move.before, labels)} → {_chip(move.after, labels)}"
        f"<span>{percent(move.share)}</span></li>"
        for move in view.moves
    )
    return f"<section><h3>changes</h3><ul>{items or '<li>none</li>'}</ul></section>"


def _chip(label: int, labels: LabelSet) -> str:
    red, green, blue = labels.palette[label]
    name = html.escape(labels.classes[label])
    return f'<b class="ex-chip"><i style="background:rgb({red},{green},{blue})"></i>{name}</b>'


def _line(style: str, name: str, values: Sequence[float]) -> str:
    width, height = SIZE
    low, high = min(values), max(values)
    reach = (high - low) or 1.0
    points = [
        (8 + (width - 16) * i / (len(values) - 1), 8 + (height - 16) * (high - value) / reach)
        for i, value in enumerate(values)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{i}: {_number(value)}</title></circle>'
        for i, ((x, y), value) in enumerate(zip(points, values, strict=True))
    )
    return (
        f'<figure class="ex-{style}"><figcaption>{name}<span>{_number(values[0])} → '
        f"{_number(values[-1])}</span></figcaption>"
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name} per iteration">'
        f'<polyline points="{path}"/>{dots}</svg></figure>'
    )


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", MINUS)
