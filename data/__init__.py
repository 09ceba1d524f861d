"""Data sets as the models see them: configs, splits, transforms and the training stream."""

from __future__ import annotations

from data.collage import Collage, CollageConfig
from data.dataset import SegmentationDataset, Split
from data.sample import VOID, Sample
from data.stream import Batch, TrainStream
from data.transforms import Augment, TransformConfig
from data.voc import Voc, VocConfig

DataConfig = CollageConfig | VocConfig

__all__ = [
    "VOID",
    "Augment",
    "Batch",
    "Collage",
    "CollageConfig",
    "DataConfig",
    "Sample",
    "SegmentationDataset",
    "Split",
    "TrainStream",
    "TransformConfig",
    "Voc",
    "VocConfig",
    "build",
]


def build(config: DataConfig, split: Split) -> SegmentationDataset:
    """The data set that a config describes.

    Raises:
        FileNotFoundError: files of the data set are absent; the message says which option to pass.
        ValueError: the config or a list is inconsistent.
    """
    if isinstance(config, CollageConfig):
        return Collage(config, split)
    return Voc(config, split)
