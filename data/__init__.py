"""Data sets as the models see them: configs, splits, transforms and the training stream."""

from __future__ import annotations

from data.camvid import CamVidConfig
from data.cityscapes import CityscapesConfig
from data.coco import CocoConfig
from data.collage import Collage, CollageClicksConfig, CollageConfig
from data.dataset import (
    VOID,
    CorruptSample,
    LabelSet,
    Sample,
    SegmentationDataset,
    Split,
    choose,
    label_pixels,
    labels_from_dict,
    labels_to_dict,
)
from data.folder import FolderConfig
from data.kinds import DataConfig, build, config_from_dict, config_to_dict
from data.paired import RootedConfig
from data.stream import Batch, TrainStream
from data.transforms import Augment, TransformConfig
from data.verify import suspicions
from data.voc import VocClicksConfig, VocConfig
from data.voc2010 import PascalContextConfig, PersonPartConfig

__all__ = [
    "VOID",
    "Augment",
    "Batch",
    "CamVidConfig",
    "CityscapesConfig",
    "CocoConfig",
    "Collage",
    "CollageClicksConfig",
    "CollageConfig",
    "CorruptSample",
    "DataConfig",
    "FolderConfig",
    "LabelSet",
    "PascalContextConfig",
    "PersonPartConfig",
    "RootedConfig",
    "Sample",
    "SegmentationDataset",
    "Split",
    "TrainStream",
    "TransformConfig",
    "VocClicksConfig",
    "VocConfig",
    "build",
    "choose",
    "config_from_dict",
    "config_to_dict",
    "label_pixels",
    "labels_from_dict",
    "labels_to_dict",
    "suspicions",
]
