"""The numbers of every network as Markdown, for the README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval import tables

TITLES = ("network", "parameters", "GFLOPs", "output stride", "logit stride", "receptive field")

LEGEND = (
    "GFLOPs: 10^9 operations of one forward pass in eval mode, two for each multiplication and "
    "addition of convolutions; receptive field: pixels in a row that a logit sees, by gradient, "
    "without image pooling, which sees all."
)


def markdown_table(results: Mapping[str, Any]) -> str:
    """One row for each network.

    Args:
        results: the content of a results file of the kind "networks".
    """
    lines = [list(TITLES), ["---"] + ["---:"] * (len(TITLES) - 1)]
    for row in results["networks"]:
        lines.append(
            [
                f"`{row['name']}`",
                f"{row['parameters']:,}",
                f"{row['flops'] / 1e9:,.1f}",
                str(row["output_stride"]),
                str(row["logit_stride"]),
                f"{row['receptive_field']:,}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_block(results: Mapping[str, Any]) -> str:
    """The table with what it takes to repeat it."""
    size = results["size"]
    return "\n".join(
        [
            "```",
            results["command"],
            "```",
            "",
            f"- {results['classes']} classes; operations at {size} x {size} pixels; torch "
            f"{results['versions']['torch']}",
            f"- commit {tables.commit_line(results)}",
            "",
            markdown_table(results),
            "",
            LEGEND,
        ]
    )
