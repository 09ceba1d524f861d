"""Score a checkpoint on a split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor

from data import SegmentationDataset, Split
from eval.inference import (
    InferenceConfig,
    batches_by_size,
    image_of,
    infer_each,
    labels_of,
    samples,
)
from eval.metrics import (
    SHOWN_WIDTHS,
    Bootstrap,
    Interval,
    Scorer,
    SplitCounts,
    harm_rate,
    joined,
    score_named,
    scores,
)
from eval.metrics.boundary import Band
from models import Segmenter
from runtime import distributed
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.distributed import DeviceName, device_named
from runtime.run_folder import split_of

# The scores of a split as a table: before the CRF, behind it, and the difference between them.

ABSENT = "–"


class Row(NamedTuple):
    """One score.

    Attributes:
        title: what it is called.
        name, within: of `eval.metrics.score_named`.
        scale, digits: how it is written.
    """

    title: str
    name: str
    within: str | None = None
    scale: float = 100.0
    digits: int = 2

    def written(self, value: float | None) -> str:
        """Format a value."""
        return ABSENT if value is None else f"{self.scale * value:.{self.digits}f}"

    def change(self, found: Interval | None) -> str:
        """Format a difference with its interval: "+1.72  [+1.10, +2.31]"."""
        if found is None:
            return ABSENT
        value, low, high = (f"{self.scale * v:+.{self.digits}f}" for v in found)
        return f"{value}  [{low}, {high}]"


SECTIONS: tuple[tuple[Row, ...], ...] = (
    (
        Row("mIoU", "miou"),
        Row("frequency-weighted IoU", "fwiou"),
        Row("pixel accuracy", "pixel_accuracy"),
        Row("class accuracy", "class_accuracy"),
    ),
    (
        Row("Boundary IoU", "boundary_iou"),
        Row("boundary F-score", "boundary_f"),
        *(Row(f"trimap mIoU {width} px", "trimap_miou", width) for width in SHOWN_WIDTHS),
    ),
    (
        Row("NLL, nats", "nll", scale=1.0, digits=4),
        Row("Brier score", "brier", scale=1.0, digits=4),
        Row("calibration error", "ece"),
    ),
)


def as_json(changes: Mapping[Row, Interval | None]) -> dict[str, dict[str, Any]]:
    """Value, low and high by the name of a score, or "NAME WITHIN" in a trimap or of a class."""
    return {
        row.name if row.within is None else f"{row.name} {row.within}": found._asdict()
        for row, found in changes.items()
        if found is not None
    }


def differences(counts: Mapping[str, SplitCounts]) -> dict[Row, Interval | None]:
    """Subtract every score before the CRF from that behind it, with 95 % intervals over the images.

    Args:
        counts: "unary" and, with a CRF, "crf", of the same images.

    Returns:
        Nothing without a CRF.
    """
    if "crf" not in counts:
        return {}
    bootstrap = Bootstrap(len(counts["unary"]))
    before, after = [counts["unary"]], [counts["crf"]]
    return {
        row: bootstrap.difference(after, before, score_named(row.name, row.within))
        for section in (*SECTIONS, _classes(counts["unary"]))
        for row in section
    }


def score_table(
    title: str, counts: Mapping[str, SplitCounts], changes: Mapping[Row, Interval | None]
) -> Table:
    """Tabulate one column for each kind of logits, and one for what the CRF changed.

    Args:
        title: of the table.
        counts: "unary" and, with a CRF, "crf".
        changes: their `differences`.
    """
    table = Table(title=title)
    table.add_column("per cent, if not said otherwise")
    for kind in counts:
        table.add_column(kind, justify="right")
    if changes:
        table.add_column("difference  [95 %]", justify="right")
        table.caption = "intervals: paired bootstrap over the images"
    for section in (*SECTIONS, _classes(counts["unary"])):
        for row in section:
            score = score_named(row.name, row.within)
            values = [float(score(of_kind, of_kind.all_once())[0]) for of_kind in counts.values()]
            written = [row.written(None if value != value else value) for value in values]
            table.add_row(row.title, *written, *([row.change(changes[row])] if changes else []))
        table.add_section()
    if changes:
        harmed = harm_rate(counts["unary"], counts["crf"])
        said = ABSENT if harmed is None else f"{100 * harmed:.2f}"
        table.add_row("images with a lower mIoU", "", "", said)
    return table


def _classes(counts: SplitCounts) -> tuple[Row, ...]:
    return tuple(Row(f"IoU {name}", "iou_per_class", name) for name in counts.classes)


# `python -m eval run`: the scores of a checkpoint.


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
    """Count before and after the CRF in one pass over the images.

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
