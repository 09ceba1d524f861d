"""The report of a comparison: one HTML page that needs nothing but a browser.

Images are data URIs, figures are inline SVG, the style sheet is in the page; it follows the
reader's light or dark setting. What a run lacks is said on the page, never an error: a comparison
that was stopped half-way still deserves its report.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from data.dataset import SegmentationDataset
from eval import figures, learned, panels, table, wording
from eval.arms import ABOUT_ARMS, ARMS
from eval.summary import missing_runs

Results = Mapping[str, Any]

TEMPLATE = Path(__file__).with_name("report_template.html")

BANDS = {
    "void": "around the void border of the objects (dilated void, without void itself)",
    "edge": "around the edges between labels, on both sides",
}


def write_report(run_dir: Path, results: Results, report_split: SegmentationDataset) -> Path:
    """Write the page.

    Args:
        run_dir: the comparison's folder; predictions are read from its predictions/.
        results: the content of its results.json.
        report_split: the images and masks that the arms were scored on.

    Returns:
        The path of the page, run_dir/report.html.

    Raises:
        ValueError: a prediction whose size is not the image's.
    """
    missing = [
        f"No run of {arm} for seed {', '.join(map(str, seeds))}."
        for arm, seeds in missing_runs(results)
    ]
    seed = panels.seed_to_show(results)
    panel_section = _panels(run_dir, results, report_split, seed, missing)
    data = results["data"]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_escape(wording.headline(results)),
        name=_escape(results["name"]),
        remarks=_escape(" ".join(wording.remarks(results))),
        steps=_escape(results["network_steps"]),
        facts=_definitions(_facts(results)),
        ladder=_figure(figures.ladder(results), "No arm has a score."),
        missing=_notice(missing),
        table=_table(results),
        legend=_escape(table.LEGEND),
        arms=_arms(ABOUT_ARMS),
        class_arms=_arms(dict.fromkeys(("post-hoc", "crf-only", "joint"), "")),
        band=_escape(_band(results)),
        trimap=_figure(figures.trimap_curves(results), "No arm has trimap scores."),
        trimap_difference=_figure(
            figures.trimap_differences(results), "The unary arm has no trimap scores to subtract."
        ),
        classes=_figure(
            figures.class_differences(results), "The unary arm has no class scores to subtract."
        ),
        scored=len(data["scored"]),
        all_classes=len(data["classes"]),
        crf_table=learned.crf_table(results),
        heat_maps=learned.heat_maps(results),
        palette=_palette(report_split),
        panel_seed="" if seed is None else f", seed {seed}",
        panels=panel_section,
        config=_escape(json.dumps(results["config"], indent=2, ensure_ascii=False)),
        versions=_definitions(results["versions"]),
    )
    path = run_dir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _escape(value: object) -> str:
    return html.escape(str(value))


def _definitions(pairs: Mapping[str, Any]) -> str:
    return "".join(
        f"<div><dt>{_escape(key)}</dt><dd>{_escape(value)}</dd></div>"
        for key, value in pairs.items()
    )


def _facts(results: Results) -> dict[str, str]:
    splits = results["data"]["splits"]
    images = ", ".join(f"{count} {split}" for split, count in splits.items())
    return {
        "command": results["command"],
        "recipe": results["recipe"],
        "data": f"{len(results['data']['classes'])} classes; images: {images}",
        "seeds": wording.seeds_line(results),
        "commit": wording.commit_line(results),
        "machine": wording.machine_line(results),
        "started": results["started"],
        "wall time": wording.duration(results["wall_seconds"]),
    }


def _arms(about: Mapping[str, str]) -> str:
    return "".join(
        f'<li class="arm-{arm}"><b>{arm}</b> {_escape(words)}</li>' for arm, words in about.items()
    )


def _figure(picture: str | None, otherwise: str) -> str:
    return picture if picture is not None else f'<p class="absent">{_escape(otherwise)}</p>'


def _notice(missing: list[str]) -> str:
    if not missing:
        return ""
    items = "".join(f"<li>{_escape(sentence)}</li>" for sentence in missing)
    return f'<aside class="notice"><b>Missing from this run</b><ul>{items}</ul></aside>'


def _table(results: Results) -> str:
    head = "".join(f"<th>{_escape(title)}</th>" for title in table.columns())
    body = ""
    for arm, row in zip(ARMS, table.rows(results), strict=True):
        cells = "".join(f"<td>{_with_small_deviation(cell)}</td>" for cell in row[1:])
        body += f'<tr class="arm-{arm}"><th>{_escape(row[0])}</th>{cells}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _with_small_deviation(cell: str) -> str:
    value, _, deviation = _escape(cell).replace("-", "−").partition(" ± ")
    return f"{value} <small>± {deviation}</small>" if deviation else value


def _band(results: Results) -> str:
    rules = {run["metrics"]["report"].get("trimap_band", "void") for run in results["runs"]}
    return "; ".join(BANDS[rule] for rule in sorted(rules))


def _palette(split: SegmentationDataset) -> str:
    chips = ""
    for index, name in enumerate(split.classes):
        red, green, blue = split.palette[index]
        chips += f'<li><i style="background:rgb({red},{green},{blue})"></i>{_escape(name)}</li>'
    return f'<ul class="palette">{chips}</ul>'


def _panels(
    run_dir: Path,
    results: Results,
    split: SegmentationDataset,
    seed: int | None,
    missing: list[str],
) -> str:
    if seed is None:
        return '<p class="absent">Panels need a joint and a post-hoc run of one seed.</p>'
    sections = ""
    absent: dict[str, list[str]] = {}
    for group, choices in panels.choose(results, seed).items():
        if choices:
            rows = "".join(panels.render(c, run_dir, split, seed, absent) for c in choices)
            sections += f"<h3>{group.capitalize()} for joint training</h3>{rows}"
    missing += [
        f"No prediction file of {arm}, seed {seed}, for {', '.join(names)}."
        for arm, names in absent.items()
    ]
    return sections
