"""Speed and memory of every network as Markdown, for the README."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from eval import tables

COLUMNS = [(task, crf) for task in ("inference", "training") for crf in (False, True)]

LEGEND = (
    "Images a second and, in brackets, peak memory in GB, from RGB to logits of the same size. A "
    "training step is forward, backward and update; BN is frozen. CRF: {crf}. Peaks are of "
    "everything the network brings, weights included."
)
CRF = "5 iterations in training, 10 in inference, full resolution"


def markdown_table(results: Mapping[str, Any]) -> str:
    """One row for each network, one column for each task without and with the CRF."""
    titles = [f"{task}{' + CRF' if crf else ''}" for task, crf in COLUMNS]
    lines = [["network", *titles], ["---"] + ["---:"] * len(COLUMNS)]
    names = list(dict.fromkeys([*(row["name"] for row in results["rows"]), *results["late"]]))
    for name in names:
        cells = {
            (row["task"], row["crf"]): _cell(row) for row in results["rows"] if row["name"] == name
        }
        lines.append([f"`{name}`", *(cells.get(column, tables.ABSENT) for column in COLUMNS)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_block(results: Mapping[str, Any]) -> str:
    """The table with what it takes to repeat it."""
    size = results["size"]
    head = [
        "```",
        results["command"],
        "```",
        "",
        f"- one image of {size} x {size} pixels, {results['classes']} classes, "
        f"{results['device']}, {results['threads']} threads; median of up to "
        f"{results['repeats']} rounds, of one where it takes more than {results['seconds']:g} s; "
        f"torch {results['versions']['torch']}",
        f"- machine: {tables.machine_line(results)}; "
        f"wall time {tables.duration(results['wall_seconds'])}",
        f"- commit {tables.commit_line(results)}",
    ]
    if results["late"]:
        late = ", ".join(f"`{name}` {count}" for name, count in results["late"].items())
        head.append(f"- tasks left out after {results['limit']:g} s for a network: {late}")
    return "\n".join([*head, "", markdown_table(results), "", LEGEND.format(crf=CRF)])


def _cell(row: Mapping[str, Any]) -> str:
    speed = 1 / statistics.median(row["seconds"])
    text = f"{speed:.2f}" if speed < 10 else f"{speed:.0f}"
    return text if row["peak_bytes"] is None else f"{text} ({row['peak_bytes'] / 1e9:.2f})"
