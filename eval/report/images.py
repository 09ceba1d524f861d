"""The images that a comparison was scored on, wherever they lie now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.dataset import SegmentationDataset
from data.kinds import KINDS
from eval.report.comparison import Comparison
from eval.report.reading import Lack
from runtime.checkpoint import read_checkpoint
from runtime.run_folder import split_of

REMEDY = "Pass --data.root DIR, the folder where the data set lies now, for a gallery."


def find_split(comparison: Comparison, root: Path | None) -> SegmentationDataset | None:
    """The report split, from what the run folders say of their data.

    Args:
        comparison: whose run folders are asked; gets a lack where there are no images.
        root: where the data set lies now, if not where it was.
    """
    reason = "nothing in the folder says which data set it was"
    for config in _configs(comparison):
        try:
            split = split_of(config, "report", root if "root" in config else None)
        except (ValueError, OSError) as error:
            reason = str(error).removesuffix(".")
            continue
        if split.classes == comparison.classes:
            return split
        reason = "the data set has other classes than those that were scored"
    comparison.lacks.append(Lack(comparison.name, f"no images, so no gallery: {reason}", REMEDY))
    return None


def _configs(comparison: Comparison) -> Iterator[Mapping[str, Any]]:
    """Configs of the data set, the surest first.

    A checkpoint has it with its kind. Where none can be read the recipe has it without: then every
    kind is tried, and the classes decide.
    """
    for record in comparison.records:
        for path in sorted((record.path / "arms").glob("*/checkpoint.pt")):
            try:
                yield read_checkpoint(path)["data"]
            except (ValueError, OSError):
                continue
            return
    for record in comparison.records:
        for kind in KINDS:
            yield {"kind": kind, **record.config.get("data", {})}
