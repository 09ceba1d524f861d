"""`python -m eval run`: the scores of a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from data import SegmentationDataset, Split
from eval import processes
from eval.checkpoint import load_segmenter, read_checkpoint
from eval.data_root import split_of
from eval.device import DeviceName, device_named
from eval.inference import coarse_unaries, evaluate
from eval.metrics import SplitCounts, harm_rate, scores
from eval.score_table import differences, score_table
from models import Segmenter


@dataclass(frozen=True)
class RunOptions:
    """Score a checkpoint on whole images at their native size.

    Attributes:
        checkpoint: a file that `python -m train` wrote.
        split: train, tune or report.
        data_root: where the data set lies now, if not where it was trained.
        out: write the scores to this JSON file too, and beside it, as NAME-unary.npz and
            NAME-crf.npz, what was counted on every image (`eval.metrics.SplitCounts`).
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
        {"unary": scores, "crf": scores, "difference": with intervals, "harm_rate"}, all but the
        first only with a CRF; see `eval.metrics.scores`.
    """
    checkpoint = read_checkpoint(options.checkpoint)
    dataset = split_of(checkpoint["data"], options.split, options.data_root)
    segmenter = load_segmenter(checkpoint).to(device_named(options.device))
    counts = count(segmenter, dataset)
    result: dict[str, Any] = {kind: scores(of_kind) for kind, of_kind in counts.items()}
    if "crf" in counts:
        result["difference"] = differences(counts)
        result["harm_rate"] = harm_rate(counts["unary"], counts["crf"])
    if not processes.is_first():
        return result
    title = f"{checkpoint['arm']}-seed{checkpoint['seed']}: {options.split}, {len(dataset)} images"
    Console().print(score_table(title, counts))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result))
        for kind, of_kind in counts.items():
            of_kind.save(options.out.with_name(f"{options.out.stem}-{kind}.npz"))
    return result


def count(segmenter: Segmenter, dataset: SegmentationDataset) -> dict[str, SplitCounts]:
    """What is counted before and after the CRF, from one pass of the network."""
    coarse = coarse_unaries(segmenter, dataset)
    counts = {"unary": evaluate(segmenter, dataset, coarse, use_crf=False)}
    if segmenter.crf is not None:
        counts["crf"] = evaluate(segmenter, dataset, coarse)
    return counts


def run_command(arguments: list[str]) -> None:
    """Parse and run, in every process that `torchrun` started."""
    options = tyro.cli(RunOptions, prog="python -m eval run", args=arguments)
    with processes.joined(device_named(options.device)):
        run(options)
