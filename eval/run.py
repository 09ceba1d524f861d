"""`python -m eval run`: the scores of a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from data import SegmentationDataset, Split
from eval import processes
from eval.checkpoint import load_segmenter, read_checkpoint
from eval.data_root import split_of
from eval.device import DeviceName, device_named
from eval.inference import coarse_unaries, evaluate
from models import Segmenter


@dataclass(frozen=True)
class RunOptions:
    """Score a checkpoint on whole images at their native size.

    Attributes:
        checkpoint: a file that `python -m train` wrote.
        split: train, tune or report.
        data_root: where the data set lies now, if not where it was trained.
        out: write the scores to this JSON file too.
        device: "auto" is the GPU where there is one.
    """

    checkpoint: tyro.conf.Positional[Path]
    split: Split = "report"
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    out: Path | None = None
    device: DeviceName = "auto"


def run(options: RunOptions) -> dict[str, Any]:
    """Score the network alone and, where there is one, with its CRF.

    Under `torchrun` every process scores its share of the images and the first one reports.

    Returns:
        {"unary": metrics, "crf": metrics}, the second only with a CRF.
    """
    checkpoint = read_checkpoint(options.checkpoint)
    dataset = split_of(checkpoint["data"], options.split, options.data_root)
    segmenter = load_segmenter(checkpoint).to(device_named(options.device))
    scores = score(segmenter, dataset)
    if not processes.is_first():
        return scores
    title = f"{checkpoint['arm']}-seed{checkpoint['seed']}: {options.split}, {len(dataset)} images"
    Console().print(score_table(title, scores))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(scores))
    return scores


def score(segmenter: Segmenter, dataset: SegmentationDataset) -> dict[str, Any]:
    """Metrics before and after the CRF, from one pass of the network."""
    coarse = coarse_unaries(segmenter, dataset)
    scores = {"unary": evaluate(segmenter, dataset, coarse, use_crf=False)}
    if segmenter.crf is not None:
        scores["crf"] = evaluate(segmenter, dataset, coarse)
    return scores


def score_table(title: str, scores: dict[str, Any]) -> Table:
    """One column for each kind of logits, per cent."""
    table = Table(title=title)
    table.add_column("")
    for kind in scores:
        table.add_column(kind, justify="right")

    def row(name: str, values: list[float | None]) -> None:
        table.add_row(name, *("–" if v is None else f"{100 * v:.2f}" for v in values))

    columns = list(scores.values())
    row("mIoU", [m["miou"] for m in columns])
    row("pixel accuracy", [m["pixel_accuracy"] for m in columns])
    table.add_section()
    for name in columns[0]["iou_per_class"]:
        row(f"IoU {name}", [m["iou_per_class"][name] for m in columns])
    table.add_section()
    for width in columns[0]["trimap_miou"]:
        row(f"trimap mIoU {width} px", [m["trimap_miou"][width] for m in columns])
    return table


def run_command(arguments: list[str]) -> None:
    """Parse and run, in every process that `torchrun` started."""
    options = tyro.cli(RunOptions, prog="python -m eval run", args=arguments)
    with processes.joined(device_named(options.device)):
        run(options)
