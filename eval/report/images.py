"""The images that a comparison was scored on, wherever they lie now."""

from __future__ import annotations

from pathlib import Path

from data.dataset import SegmentationDataset
from eval.checkpoint import read_checkpoint
from eval.data_root import split_of
from eval.report.comparison import Comparison
from eval.report.reading import Lack

REMEDY = "Pass --data.root DIR, the folder where the data set lies now, for a gallery."


def find_split(comparison: Comparison, root: Path | None) -> SegmentationDataset | None:
    """The report split, from what a checkpoint of the comparison says of its data.

    Args:
        comparison: whose run folders are asked; gets a lack where there are no images.
        root: where the data set lies now, if not where it was.
    """
    reason = "no checkpoint that can be read says which data set it was: no gallery"
    remedy = ""
    for record in comparison.records:
        for path in sorted((record.path / "arms").glob("*/checkpoint.pt")):
            try:
                config = read_checkpoint(path)["data"]
            except (ValueError, OSError):
                continue
            try:
                return split_of(config, "report", root if "root" in config else None)
            except (ValueError, OSError) as error:
                reason, remedy = f"the data set cannot be read: no gallery ({error})", REMEDY
                break
    comparison.lacks.append(Lack(comparison.name, reason, remedy))
    return None
