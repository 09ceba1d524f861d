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
from eval.metrics import SHOWN_WIDTHS, SplitCounts, harm_rate, scores
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
        {"unary": scores, "crf": scores}, the second only with a CRF; see `eval.metrics.scores`.
    """
    checkpoint = read_checkpoint(options.checkpoint)
    dataset = split_of(checkpoint["data"], options.split, options.data_root)
    segmenter = load_segmenter(checkpoint).to(device_named(options.device))
    counts = count(segmenter, dataset)
    found = {kind: scores(of_kind) for kind, of_kind in counts.items()}
    if not processes.is_first():
        return found
    harm = harm_rate(counts["unary"], counts["crf"]) if "crf" in counts else None
    title = f"{checkpoint['arm']}-seed{checkpoint['seed']}: {options.split}, {len(dataset)} images"
    Console().print(score_table(title, found, harm))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found))
    return found


def count(segmenter: Segmenter, dataset: SegmentationDataset) -> dict[str, SplitCounts]:
    """What is counted before and after the CRF, from one pass of the network."""
    coarse = coarse_unaries(segmenter, dataset)
    counts = {"unary": evaluate(segmenter, dataset, coarse, use_crf=False)}
    if segmenter.crf is not None:
        counts["crf"] = evaluate(segmenter, dataset, coarse)
    return counts


ROWS = {
    "miou": "mIoU",
    "fwiou": "frequency-weighted IoU",
    "pixel_accuracy": "pixel accuracy",
    "class_accuracy": "class accuracy",
    "boundary_iou": "Boundary IoU",
    "boundary_f": "boundary F-score",
    "ece": "calibration error (ECE)",
}
"""Scores in per cent, and what they are called."""


def score_table(title: str, found: dict[str, dict[str, Any]], harm: float | None) -> Table:
    """One column for each kind of logits, per cent but for the likelihood and the Brier score."""
    table = Table(title=title)
    table.add_column("")
    for kind in found:
        table.add_column(kind, justify="right")

    def row(name: str, values: list[float | None]) -> None:
        table.add_row(name, *("–" if v is None else f"{100 * v:.2f}" for v in values))

    columns = list(found.values())
    for key, name in ROWS.items():
        row(name, [m[key] for m in columns])
    for key, name in (("nll", "NLL, nats"), ("brier", "Brier score")):
        table.add_row(name, *(f"{m[key]:.4f}" if m[key] is not None else "–" for m in columns))
    if harm is not None:
        table.add_row("images that the CRF makes worse", "", f"{100 * harm:.2f}")
    table.add_section()
    for name in columns[0]["iou_per_class"]:
        row(f"IoU {name}", [m["iou_per_class"][name] for m in columns])
    table.add_section()
    for width in SHOWN_WIDTHS:
        row(f"trimap mIoU {width} px", [m["trimap_miou"][width] for m in columns])
    return table


def run_command(arguments: list[str]) -> None:
    """Parse and run, in every process that `torchrun` started."""
    options = tyro.cli(RunOptions, prog="python -m eval run", args=arguments)
    with processes.joined(device_named(options.device)):
        run(options)
