"""A matplotlib figure as SVG: as a file of its own, and as an element of the page."""

from __future__ import annotations

import re
from io import BytesIO
from urllib.parse import unquote
from xml.etree import ElementTree

from matplotlib.figure import Figure

from eval.report.figures.canvas import COLOURS, FONT, TIPS

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"

Element = ElementTree.Element


def svg_file(figure: Figure) -> str:
    """The figure in the light theme, with the texts under the pointer."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for child in list(root):
        if child.tag == f"{SVG}metadata":
            root.remove(child)
    for element in list(root.iter()):
        if element.attrib.get("id", "").startswith(TIPS):
            _add_titles(element)
    for element in root.iter():
        # HTML knows no namespaces: plain names serve both.
        element.tag = element.tag.removeprefix(SVG)
        if HREF in element.attrib:
            element.set("href", element.attrib.pop(HREF))
    root.set("xmlns", SVG.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")


def inline_svg(svg: str, name: str, label: str) -> str:
    """The same as an element of an HTML page, in the page's colours and font.

    Args:
        svg: what `svg_file` made of a figure drawn with `canvas.COLOURS`.
        name: unique on the page; every id of the element begins with it.
        label: what the picture shows, for readers who do not see it.
    """
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-label", label)
    # Little larger than drawn where there is room; on a phone it scrolls rather than vanishes.
    root.set("style", f"min-width:{0.71 * width:.0f}px;max-width:{1.12 * width:.0f}px")
    _own_ids(root, name)
    return _in_page_terms(ElementTree.tostring(root, encoding="unicode"))


def _add_titles(group: Element) -> None:
    """Every part of a group gets its text; the parts are what is drawn, not what is defined."""
    defined = {part for d in group.iter(f"{SVG}defs") for part in d.iter()}
    drawn = [e for e in group.iter() if e.tag in (f"{SVG}use", f"{SVG}path") and e not in defined]
    texts = [unquote(text) for text in group.attrib.pop("id").removeprefix(TIPS).split("|")]
    for part, text in zip(drawn, texts, strict=False):
        title = ElementTree.SubElement(part, "title")
        title.text = text


def _own_ids(root: Element, name: str) -> None:
    """Drop the ids that nothing refers to, and make the others unique on the page."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for element in root.iter():
        found = element.attrib.get("id")
        if found is not None and found not in used:
            del element.attrib["id"]
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == "href":
                element.set(key, f"#{name}-{value.removeprefix('#')}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))


def _in_page_terms(text: str) -> str:
    """Colours by role, and the page's font."""
    for role, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{role})")
    return text.replace(f"'{FONT}'", "var(--sans)")
