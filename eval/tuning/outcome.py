"""What a tuning leaves: the best setting in words for code and command line, and the table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.table import Table

from crfrnn.inference import MeanField
from eval.tuning.method import SEARCHED
from eval.tuning.objective import Objective, Scores
from models import CrfConfig, CrfForm
from models.crf import build_inference

HEADINGS = {
    "theta_gamma": "θγ", "spatial_weight": "w spatial", "theta_alpha": "θα", "theta_beta": "θβ",
    "bilateral_weight": "w bilateral",
}  # fmt: skip
OF_LAYER = (
    "kernel_weights", "compatibility", "normalization", "num_iterations_eval", "spatial_filter",
    "bilateral_filter", "lattice_accuracy",
)  # fmt: skip


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
        "output_scale": setting.output_scale,
    }
    values |= {name: getattr(setting, name) for name in OF_LAYER}
    if (inference := build_inference(setting)) != MeanField():
        values["inference"] = inference
    arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
    return f"CrfRnn({num_classes}, {arguments})"


def train_options(setting: CrfConfig) -> str:
    """Options that hold the post-hoc search of `python -m train` to a setting."""
    values = {f"search.{name}": getattr(setting, name) for name in SEARCHED}
    # What the arms learn is the recipe's choice; the search takes scalar weights in any case.
    learnt = ("kernel_weights", "compatibility")
    form = {n: v for n, v in _form_options(setting).items() if n not in learnt}
    return _as_options(values | {"search.rounds": 0} | _prefixed(form))


def predict_options(setting: CrfConfig) -> str:
    """Options of `python -m eval predict` that put the CRF of a setting behind a network."""
    values = {name: getattr(setting, name) for name in (*SEARCHED, "output_scale")}
    return _as_options(_prefixed(values | _form_options(setting)))


def _form_options(setting: CrfConfig) -> dict[str, Any]:
    """Of the form what a layer always says, and what is not the default."""
    default = CrfForm()
    changed = [f.name for f in fields(CrfForm)
               if getattr(setting, f.name) != getattr(default, f.name)]  # fmt: skip
    names = dict.fromkeys([*OF_LAYER, "resolution", *changed])
    return {name: getattr(setting, name) for name in names}


def _prefixed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"crf.{name}": value for name, value in values.items()}


def _as_options(values: Mapping[str, Any]) -> str:
    """As a command line takes them; a flag stands alone."""
    words = []
    for name, value in values.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    return " ".join(words)


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
