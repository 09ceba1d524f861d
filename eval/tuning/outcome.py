"""What a tuning leaves: the best setting in words for code and command line, and the table."""

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
FORM = ("normalization", "num_iterations_eval", "spatial_filter", "bilateral_filter")


def code_line(setting: CrfConfig, num_classes: int) -> str:
    """The layer of a setting, for the grid it runs on.

    Positions are in pixels of that grid: those of the full image over the resolution.
    """
    values: dict[str, Any] = {
        "theta_alpha": setting.theta_alpha / setting.resolution,
        "theta_beta": setting.theta_beta,
        "theta_gamma": setting.theta_gamma / setting.resolution,
        "bilateral_weight": setting.bilateral_weight,
        "spatial_weight": setting.spatial_weight,
        "kernel_weights": setting.kernel_weights,
        "compatibility": setting.compatibility,
        "output_scale": setting.output_scale,
    }
    values |= {name: getattr(setting, name) for name in FORM}
    arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"CrfRnn({num_classes}, {arguments})"


def train_options(setting: CrfConfig) -> str:
    """Options that hold the post-hoc search of `python -m train` to a setting."""
    values = {f"search.{name}": getattr(setting, name) for name in SEARCHED}
    values |= {"search.rounds": 0, "crf.resolution": setting.resolution}
    values |= {f"crf.{name}": getattr(setting, name) for name in FORM}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())


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
