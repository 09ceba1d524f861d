"""What a tuning found as Markdown, for the README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval import tables

LEGEND = (
    "mIoU in per cent and points, NLL in nats a pixel: on the tune split at the best temperature "
    "of each, on the report split at the one found on tune. The brackets are 95 % intervals of the "
    "paired difference over the images; on the images that were searched there is none, for the "
    "setting is the best of many there."
)


def markdown_block(results: Mapping[str, Any]) -> str:
    """The scores before and behind the best setting, and what it took to find it.

    Args:
        results: the content of best.json.
    """
    number, images = results["settings"], len(results["images"])
    each = results["cpu_seconds"] / max(1, number * images)
    return "\n".join(
        [
            "```",
            results["command"],
            "```",
            "",
            f"- {number} settings x {images} images of the {results['split']} split in "
            f"{tables.duration(results['measuring_seconds'])}, {each:.2f} CPU seconds for each; "
            f"{tables.machine_line(results)}",
            f"- commit {tables.commit_line(results)}",
            f"- found: `{results['code'].splitlines()[-1].split('  #')[0]}`",
            "",
            "| split | score | network | with the CRF | difference |",
            "| --- | --- | ---: | ---: | ---: |",
            *_searched(results),
            *_held_out(results),
            "",
            LEGEND,
        ]
    )


def _titles(results: Mapping[str, Any]) -> dict[str, str]:
    return {
        "miou": "mIoU",
        "trimap_miou": f"trimap mIoU {results['trimap_width']} px",
        "nll": "NLL",
    }


def _searched(results: Mapping[str, Any]) -> list[str]:
    """A row for each score on the images that were searched."""
    rows = []
    for name, title in _titles(results).items():
        before, after = results["network"][name], results["best"][name]
        if before is not None and after is not None:
            cells = [_value(name, before), _value(name, after), _value(name, after - before, "+")]
            rows.append(_row(results["split"], title, *cells))
    return rows


def _held_out(results: Mapping[str, Any]) -> list[str]:
    """A row for each score on the report split, where it was scored."""
    rows = []
    for name, title in _titles(results).items():
        found = (results["report"] or {}).get(name)
        if found is not None and found["difference"] is not None:
            change = {key: _value(name, value, "+") for key, value in found["difference"].items()}
            cells = [_value(name, found["network"]), _value(name, found["crf"])]
            cells.append(f"{change['value']} [{change['low']}, {change['high']}]")
            rows.append(_row("report", title, *cells))
    return rows


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _value(name: str, value: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if name == "nll" else f"{100 * value:{sign}.2f}"
