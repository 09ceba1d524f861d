"""The report of one or several runs: one HTML page that needs nothing but a browser.

Images are data URIs, figures are inline SVG, style sheet and scripts are in the page; it follows
the reader's light or dark setting. What a run lacks is said on the page, never an error: a
comparison that was stopped half-way still deserves its report.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from data.dataset import SegmentationDataset
from eval import wording
from eval.report import gallery, learned, tables
from eval.report.comparison import Comparison, comparisons
from eval.report.figures import KINDS, WITH_CRF, Drawing, draw, write_files
from eval.report.images import find_split
from eval.report.reading import Lack, read_run
from eval.summary import missing_runs
from runtime.provenance import provenance
from runtime.run_folder import ABOUT_ARMS

FOLDER = Path(__file__).parent

BANDS = {
    "void": "around the void border of the objects (dilated void, without void itself)",
    "edge": "around the edges between labels, on both sides",
}

SECTIONS = {
    "arms": "All arms",
    "boundaries": "Boundaries",
    "classes": "Classes",
    "images": "Images",
    "calibration": "Confidence",
    "crf": "The CRF",
    "gallery": "Gallery",
}


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        page: the HTML file.
        figures: the PNG and SVG files.
        missing: what the page says is missing, a sentence each.
    """

    page: Path
    figures: tuple[Path, ...]
    missing: tuple[str, ...]


def write_report(
    folders: Sequence[Path],
    page: Path,
    *,
    figures: Path | None = None,
    num_images: int = 60,
    data_root: Path | None = None,
    split: SegmentationDataset | None = None,
) -> Report:
    """Write the page and its figures.

    Args:
        folders: run folders, at least one; those of one recipe become one comparison.
        page: the HTML file to write.
        figures: the folder of the PNG and SVG files; by default figures/ beside the page.
        num_images: of each gallery, at most.
        data_root: where the data set lies now, if not where it was.
        split: the report split of every folder; found by what the folders say if not given.

    Raises:
        FileNotFoundError: one of the folders does not exist.
        ValueError: one of them is no run folder, none is given, or `num_images` is negative.
    """
    if not folders:
        raise ValueError("expected at least one run folder, got none.")
    found = comparisons([read_run(folder) for folder in folders])
    files: list[Path] = []
    bodies = ""
    target = figures or page.parent / "figures"
    for number, comparison in enumerate(found):
        drawings = {name: draw(comparison, name) for name in KINDS}
        inside = target if len(found) == 1 else target / f"{number + 1}-{_slug(comparison.name)}"
        files += write_files(drawings, inside)
        images = split or find_split(comparison, data_root)
        shown = gallery.build(comparison, images, num_images, f"c{number}")
        bodies += _section(comparison, drawings, shown, f"c{number}")
    missing = sentences(found)
    made = provenance()
    text = Template(_read("template.html")).substitute(
        title=_escape(wording.headline(found[0].results) if len(found) == 1 else "Comparisons"),
        style=_read("style.css"),
        navigation=_navigation(found),
        missing=_notice(missing),
        overview=_overview(found),
        comparisons=bodies,
        written_by=_escape(made["command"]),
        commit=_escape(wording.commit_line(made)),
        theme_script=_read("theme.js"),
        gallery_script=_read("gallery.js"),
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    return Report(page, tuple(files), tuple(missing))


def sentences(found: Sequence[Comparison]) -> list[str]:
    """What the comparisons lack, one line for what several arms lack alike."""
    grouped: dict[Lack, list[str]] = {}
    for comparison in found:
        lacks = list(comparison.lacks)
        for arm, seeds in missing_runs(comparison.results):
            words = f"no run of {arm} for seed {', '.join(map(str, seeds))}"
            remedy = "`train compare` with the same options and --resume makes it."
            lacks.append(Lack(comparison.name, words, remedy))
        for lack in dict.fromkeys(lacks):
            grouped.setdefault(Lack("", lack.what, lack.remedy), []).append(lack.where)
    return [
        f"{_places(where)}: {lack.what}. {lack.remedy}".strip() for lack, where in grouped.items()
    ]


def _places(where: Sequence[str]) -> str:
    """Folders, each with its arms: "demo (joint-seed0, joint-seed1), more"."""
    arms: dict[str, list[str]] = {}
    for place in where:
        folder, _, arm = place.partition("/")
        arms.setdefault(folder, []).extend([arm] if arm else [])
    return ", ".join(
        f"{folder} ({', '.join(of_folder)})" if of_folder else folder
        for folder, of_folder in arms.items()
    )


def _section(
    comparison: Comparison, drawings: Mapping[str, Drawing], shown: gallery.Gallery, place: str
) -> str:
    results = comparison.results
    pictures = {name.replace("-", "_"): _figure(drawing) for name, drawing in drawings.items()}
    return Template(_read("comparison.html")).substitute(
        pictures,
        id=place,
        title=_escape(wording.headline(results)),
        name=_escape(comparison.name),
        remarks=_escape(" ".join(wording.remarks(results))),
        steps=_escape(results["network_steps"]),
        facts=_definitions(_facts(comparison)),
        table=tables.arms_table(comparison),
        legend=_escape(tables.LEGEND),
        arms=_arms(ABOUT_ARMS),
        class_arms=_arms(dict.fromkeys(WITH_CRF, "")),
        band=_escape(_band(comparison)),
        scored=len(comparison.scored),
        all_classes=len(comparison.classes),
        crf_table=learned.crf_table(comparison),
        gallery_words=_escape(_gallery_words(shown)),
        gallery=shown.html or _absent(shown.reason),
        config=_escape(json.dumps(results["config"], indent=2, ensure_ascii=False)),
        versions=_definitions(results["versions"]),
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").rstrip()


def _escape(value: object) -> str:
    return html.escape(str(value))


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "comparison"


def _definitions(pairs: Mapping[str, Any]) -> str:
    return "".join(
        f"<div><dt>{_escape(key)}</dt><dd>{_escape(value)}</dd></div>"
        for key, value in pairs.items()
    )


def _facts(comparison: Comparison) -> dict[str, str]:
    results = comparison.results
    images = ", ".join(f"{count} {split}" for split, count in comparison.splits.items())
    return {
        "command": results["command"],
        "recipe": comparison.recipe,
        "data": f"{len(comparison.classes)} classes; images: {images or 'unknown'}",
        "seeds": wording.seeds_line(results),
        "commit": wording.commit_line(results),
        "machine": wording.machine_line(results) or "unknown",
        "started": results["started"],
        "wall time": wording.duration(results["wall_seconds"])
        if results["wall_seconds"]
        else "unknown",
    }


def _arms(about: Mapping[str, str]) -> str:
    return "".join(
        f'<li class="arm-{arm}"><b>{arm}</b> {_escape(words)}</li>' for arm, words in about.items()
    )


def _figure(drawing: Drawing) -> str:
    if drawing.reason:
        return _absent(drawing.reason)
    data = base64.b64encode(drawing.svg.encode()).decode("ascii")
    # Little larger than drawn where there is room; on a phone it scrolls rather than vanishes.
    size = f"min-width:{0.71 * drawing.width:.0f}px;max-width:{1.12 * drawing.width:.0f}px"
    return (
        f'<img class="plot" style="{size}" alt="{_escape(drawing.label)}" '
        f'src="data:image/svg+xml;base64,{data}">'
    )


def _absent(reason: str) -> str:
    return f'<p class="absent">{_escape(reason)}</p>'


def _navigation(found: Sequence[Comparison]) -> str:
    if len(found) == 1:
        return "".join(f'<a href="#c0-{key}">{words}</a>' for key, words in SECTIONS.items())
    links = "".join(
        f'<a href="#c{number}">{_escape(comparison.name)}</a>'
        for number, comparison in enumerate(found)
    )
    return f'<a href="#overview">Overview</a>{links}'


def _overview(found: Sequence[Comparison]) -> str:
    if len(found) == 1:
        return ""
    return (
        f'<section id="overview"><h1>{len(found)} comparisons</h1>'
        '<p class="soft">mIoU of the report split in per cent, below it the 95 % interval over '
        "the images. Other recipes or data are no match for each other: compare along a row.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Overview">'
        f"{tables.overview(found)}</div></section>"
    )


def _notice(missing: Sequence[str]) -> str:
    if not missing:
        return ""
    items = "".join(f"<li>{_escape(sentence)}</li>" for sentence in missing)
    return f'<aside class="notice"><b>Missing from this report</b><ul>{items}</ul></aside>'


def _band(comparison: Comparison) -> str:
    reports = [run.result["metrics"]["report"] for run in comparison.runs]
    rules = {report.get("trimap_band", "void") for report in reports}
    return "; ".join(BANDS[rule] for rule in sorted(rules)) or "of growing width"


def _gallery_words(shown: gallery.Gallery) -> str:
    if not shown.html:
        return ""
    which = (
        f"All {shown.images} images"
        if shown.shown == shown.images
        else f"{shown.shown} of {shown.images} images (the best, the worst and evenly between)"
    )
    return (
        f"{which} of the report split, seed {shown.seed}, at first by the gain of {shown.right} "
        f"over {shown.left} in mIoU on the image. Drag over a picture, or focus it and use the "
        "arrow keys; the numbers are each arm’s mIoU on the image. The window of the zoom is "
        f"where {shown.left} and {shown.right} differ most."
    )
