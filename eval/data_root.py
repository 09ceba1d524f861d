"""The data set that a checkpoint or a run was made with, wherever it lies now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import data
from data import CollageConfig, DataConfig, SegmentationDataset, Split


def split_of(config: Mapping[str, Any], split: Split, root: Path | None) -> SegmentationDataset:
    """One split of a stored data set.

    Args:
        config: the data set's config as a dictionary, with its kind.
        split: train, tune or report.
        root: where the data set lies now, if not where it was.

    Raises:
        ValueError: a root for a data set that is made, not read.
        FileNotFoundError: nothing lies there.
    """
    return data.build(config_at(config, root), split)


def config_at(config: Mapping[str, Any], root: Path | None) -> DataConfig:
    """The config of a stored data set, at the root where it lies now, if not where it was.

    Raises:
        ValueError: a root for a data set that is made, not read.
    """
    built = data.config_from_dict(dict(config))
    if root is None:
        return built
    if isinstance(built, CollageConfig):
        raise ValueError("--data.root: this checkpoint's data set is made, not read from disk.")
    return replace(built, root=root)
