"""What a tuning leaves: every setting as a row of a file, the best ones on the terminal."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from eval.tuning.method import SEARCHED
from eval.tuning.objective import Objective, Scores
from models import CrfConfig

HEADINGS = {
    "theta_gamma": "θγ", "spatial_weight": "w spatial", "theta_alpha": "θα", "theta_beta": "θβ",
    "bilateral_weight": "w bilateral",
}  # fmt: skip


def write_table(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Every line of settings.jsonl as a row of a CSV file; the network alone has no values."""
    scores = ("miou", "trimap_miou", "nll", "output_scale")
    rest = ("label_floor", "seconds", "cpu_seconds")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", *SEARCHED, *scores, *rest])
        for line in lines:
            setting = line["setting"] or {}
            writer.writerow(
                [
                    line["stage"],
                    *(setting.get(name) for name in SEARCHED),
                    *(line["scores"][name] for name in scores),
                    *(line[name] for name in rest),
                ]
            )


def top_table(
    found: Mapping[CrfConfig, Scores],
    network: Scores,
    objective: Objective,
    trimap_width: int,
    count: int = 10,
) -> Table:
    """The best settings, and the network alone below them."""
    table = Table(title=f"best {min(count, len(found))} of {len(found)} settings by {objective}")
    for name in SEARCHED:
        table.add_column(HEADINGS[name], justify="right")
    for name in ("mIoU", f"trimap {trimap_width} px", "NLL"):
        table.add_column(name, justify="right")
    ranked = sorted(found, key=lambda s: found[s].value(objective), reverse=True)
    for setting in ranked[:count]:
        values = [f"{getattr(setting, name):.4g}" for name in SEARCHED]
        table.add_row(*values, *_cells(found[setting]))
    table.add_section()
    table.add_row("network", *[""] * (len(SEARCHED) - 1), *_cells(network))
    return table


def _cells(scores: Scores) -> list[str]:
    shares = ["–" if s is None else f"{100 * s:.2f}" for s in (scores.miou, scores.trimap_miou)]
    return [*shares, "–" if scores.nll is None else f"{scores.nll:.4f}"]
