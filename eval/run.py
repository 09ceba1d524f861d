"""`python -m eval run`: the scores of a checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from torch import Tensor

from data import SegmentationDataset, Split
from eval.inference import image_of, labels_of, samples
from eval.metrics import Scorer, SplitCounts, harm_rate, joined, scores
from eval.metrics.trimap import Band
from eval.score_table import as_json, differences, score_table
from eval.size_batches import batches_by_size
from eval.whole_image import InferenceConfig, infer_each
from models import Segmenter
from runtime import distributed
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.distributed import DeviceName, device_named
from runtime.run_folder import split_of


@dataclass(frozen=True)
class RunOptions:
    """Score a checkpoint on whole images at their native size.

    Attributes:
        checkpoint: a file that `python -m train` wrote.
        split: train, tune or report.
        data_root: where the data set lies now, if not where it was trained.
        out: write the scores to this JSON file too, and beside it, as NAME-unary.npz and
            NAME-crf.npz, what was counted on every image (`eval.metrics.SplitCounts`).
        inference: scales, mirrors and windows; none of them by default.
        batch_size: images that pad to one size and go through the network together.
        device: "auto" is the GPU where there is one.
    """

    checkpoint: tyro.conf.Positional[Path]
    split: Split = "report"
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    out: Path | None = None
    inference: Annotated[InferenceConfig, tyro.conf.arg(name="")] = field(
        default_factory=InferenceConfig
    )
    batch_size: int = 1
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
    counts = count(segmenter, dataset, options.inference, options.batch_size)
    result: dict[str, Any] = {kind: scores(of_kind) for kind, of_kind in counts.items()}
    changes = differences(counts)
    if "crf" in counts:
        result["difference"] = as_json(changes)
        result["harm_rate"] = harm_rate(counts["unary"], counts["crf"])
    if not distributed.is_first():
        return result
    title = f"{checkpoint['arm']}-seed{checkpoint['seed']}: {options.split}, {len(dataset)} images"
    Console().print(score_table(title, counts, changes))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result))
        for kind, of_kind in counts.items():
            of_kind.save(options.out.with_name(f"{options.out.stem}-{kind}.npz"))
    return result


def count(
    segmenter: Segmenter, dataset: SegmentationDataset, config: InferenceConfig, batch_size: int
) -> dict[str, SplitCounts]:
    """What is counted before and after the CRF, from one pass over the images.

    Args:
        segmenter: in eval mode.
        dataset: a split, of which every process counts its share.
        config: how an image is predicted.
        batch_size: images that go through the network together.
    """
    band: Band = "void" if dataset.has_void else "edge"
    kinds = ("unary",) if segmenter.crf is None else ("unary", "crf")
    scorers = {kind: Scorer(dataset.classes, dataset.scored, band=band) for kind in kinds}
    for batch in batches_by_size(
        samples(dataset), lambda s: segmenter.padded_size(s.image.shape[1:]), batch_size
    ):
        images = [image_of(sample, segmenter.device) for _, sample in batch]
        outputs = infer_each(segmenter, images, config)
        for (_, sample), output in zip(batch, outputs, strict=True):
            for kind, scorer in scorers.items():
                logits: Tensor = getattr(output, kind)[0]
                scorer.update(sample.name, labels_of(logits), sample.mask, logits)
    return {
        kind: joined(distributed.gathered(scorer.counts()), dataset.names)
        for kind, scorer in scorers.items()
    }


def run_command(arguments: list[str]) -> None:
    """Parse and run, in every process that `torchrun` started."""
    options = tyro.cli(RunOptions, prog="python -m eval run", args=arguments)
    with distributed.joined(device_named(options.device)):
        run(options)
