"""Write the report of one or several runs: one HTML page that needs nothing but a browser.

Images and figures are data URIs; style sheet and script are in the page. What a run lacks is said
on the page, never an error: a comparison that was stopped half-way still deserves its report.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import tyro
from rich.console import Console

from data.dataset import SegmentationDataset
from eval import tables
from eval.report import gallery
from eval.report.figures import KINDS, WITH_CRF, draw, write_files
from eval.runs import Comparison, Lack, comparisons, read_run
from runtime.provenance import provenance
from runtime.run_folder import ABOUT_ARMS

BANDS = {
    "void": "around the void border of the objects (dilated void, without void itself)",
    "edge": "around the edges between labels, on both sides",
}


@dataclass(frozen=True)
class ReportOptions:
    """Write one HTML page about one or several runs, and its figures as PNG and SVG.

    Attributes:
        runs: folders that `python -m train compare` or `run` wrote, also unfinished ones. Those of
            the same recipe and data become one comparison with more seeds.
        out: the page; by default report.html in the run folder, or beside several.
        figures: folder of the figures; by default figures/ beside the page.
        data_root: where the data set lies now, if not where it was trained.
        gallery: images of each gallery at most: the best, the worst, and evenly between.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    figures: Path | None = None
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    gallery: int = 60

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("no run folder given: python -m eval report runs/demo")
        if self.gallery < 0:
            raise ValueError(f"--gallery is at least 0, got {self.gallery}.")


@dataclass(frozen=True)
class Report:
    """Hold what was written.

    Attributes:
        page: the HTML file.
        figures: the PNG and SVG files.
        missing: what the page says is missing, a sentence each.
    """

    page: Path
    figures: tuple[Path, ...]
    missing: tuple[str, ...]


def report_command(arguments: list[str]) -> None:
    """Parse the command line, write the page, and print what it lacks."""
    options = tyro.cli(ReportOptions, prog="python -m eval report", args=arguments)
    first = options.runs[0]
    folder = first if len(options.runs) == 1 else first.resolve().parent
    written = write_report(
        options.runs,
        options.out or folder / "report.html",
        figures=options.figures,
        num_images=options.gallery,
        data_root=options.data_root,
    )
    print_report(written, Console())


def print_report(written: Report, console: Console) -> None:
    """Print what was written, and what is missing from it."""
    for sentence in written.missing:
        console.print(f"missing: {sentence}", style="yellow", markup=False, highlight=False)
    # One path a line, never folded: to be copied.
    console.print(f"report:  {written.page}", soft_wrap=True, markup=False, highlight=False)
    if written.figures:
        folders = ", ".join(dict.fromkeys(str(path.parent) for path in written.figures))
        console.print(f"figures: {folders}", soft_wrap=True, markup=False, highlight=False)


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
        split: the report split of every folder; by default it is found by what the folders say.

    Raises:
        FileNotFoundError: one of the folders does not exist.
        ValueError: one of them is no run folder, none is given, or `num_images` is negative.
    """
    if not folders:
        raise ValueError("expected at least one run folder, got none.")
    all_comparisons = comparisons([read_run(folder) for folder in folders])
    alone = len(all_comparisons) == 1
    target = figures or page.parent / "figures"
    files: list[Path] = []
    sections = []
    for number, comparison in enumerate(all_comparisons):
        drawings = {name: draw(comparison, name) for name in KINDS}
        slug = re.sub(r"[^\w.]+", "-", comparison.name).strip("-.") or "comparison"
        files += write_files(drawings, target if alone else target / f"{number + 1}-{slug}")
        images = split or gallery.find_split(comparison, data_root)
        shown = gallery.build(comparison, images, num_images)
        sections.append({**_section(comparison), "figures": drawings, "gallery": shown})
    missing = sentences(all_comparisons)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode("ascii")
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # unsorted: in our order
    made = provenance()
    text = environment.get_template("page.html").render(
        title=sections[0]["title"] if alone else "Comparisons",
        comparisons=sections,
        overview="" if alone else tables.overview(all_comparisons),
        missing=missing,
        about_arms=ABOUT_ARMS,
        with_crf=dict.fromkeys(WITH_CRF, ""),
        command=made["command"],
        commit=tables.commit_line(made),
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    return Report(page, tuple(files), tuple(missing))


def sentences(all_comparisons: Sequence[Comparison]) -> list[str]:
    """Say what the comparisons lack, one line for what several arms lack alike."""
    places: dict[tuple[str, str], list[str]] = {}
    for comparison in all_comparisons:
        lacks = list(comparison.lacks)
        for arm, seeds in comparison.missing():
            words = f"no run of {arm} for seed {', '.join(map(str, seeds))}"
            remedy = "`train compare` with the same options and --resume makes it."
            lacks.append(Lack(comparison.name, words, remedy))
        for lack in dict.fromkeys(lacks):
            places.setdefault((lack.what, lack.remedy), []).append(lack.where)
    return [
        f"{_by_folder(where)}: {what}. {remedy}".strip() for (what, remedy), where in places.items()
    ]


def _by_folder(places: Sequence[str]) -> str:
    """Join folders, each with its arms: "demo (joint-seed0, joint-seed1), more"."""
    arms: dict[str, list[str]] = {}
    for place in places:
        folder, _, arm = place.partition("/")
        arms.setdefault(folder, []).extend([arm] if arm else [])
    return ", ".join(
        f"{folder} ({', '.join(names)})" if names else folder for folder, names in arms.items()
    )


def _section(comparison: Comparison) -> Mapping[str, Any]:
    """Collect the words and tables of a comparison for the template."""
    made = comparison.provenance
    images = ", ".join(f"{count} {split}" for split, count in comparison.splits.items())
    seconds = made["wall_seconds"]
    reports = [run.result["metrics"]["report"] for run in comparison.runs]
    bands = {BANDS[report.get("trimap_band", "void")] for report in reports}
    return {
        "name": comparison.name,
        "title": tables.headline(comparison),
        "remarks": " ".join(tables.remarks(comparison)),
        "steps": comparison.network_steps,
        "facts": {
            "command": made["command"],
            "recipe": comparison.recipe,
            "data": f"{len(comparison.classes)} classes; images: {images or 'unknown'}",
            "seeds": tables.list_of(comparison.seeds),
            "commit": tables.commit_line(made),
            "machine": tables.machine_line(made) or "unknown",
            "started": made["started"],
            "wall time": tables.duration(seconds) if seconds else "unknown",
        },
        "arms_table": tables.arms_table(comparison),
        "legend": tables.PAGE_LEGEND,
        "band": "; ".join(sorted(bands)) or "of growing width",
        "num_scored": len(comparison.scored),
        "num_classes": len(comparison.classes),
        "crf_table": tables.crf_table(comparison),
        "config": json.dumps(dict(comparison.config), indent=2, ensure_ascii=False),
        "versions": made["versions"],
    }
