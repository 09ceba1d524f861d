"""Data sets as the models see them: configs, splits, transforms and the training stream."""

from __future__ import annotations

from data.camvid import CamVid, CamVidConfig
from data.cityscapes import Cityscapes, CityscapesConfig
from data.coco import Coco, CocoConfig
from data.collage import Collage, CollageConfig
from data.dataset import VOID, CorruptSample, Sample, SegmentationDataset, Split, label_pixels
from data.folder import Folder, FolderConfig
from data.kinds import DataConfig, RootedConfig, build, config_from_dict, config_to_dict
from data.pascal_context import PascalContext, PascalContextConfig
from data.person_part import PersonPart, PersonPartConfig
from data.stream import Batch, TrainStream
from data.transforms import Augment, TransformConfig
from data.voc import Voc, VocConfig

__all__ = [
    "VOID",
    "Augment",
    "Batch",
    "CamVid",
    "CamVidConfig",
    "Cityscapes",
    "CityscapesConfig",
    "Coco",
    "CocoConfig",
    "Collage",
    "CollageConfig",
    "CorruptSample",
    "DataConfig",
    "Folder",
    "FolderConfig",
    "PascalContext",
    "PascalContextConfig",
    "PersonPart",
    "PersonPartConfig",
    "RootedConfig",
    "Sample",
    "SegmentationDataset",
    "Split",
    "TrainStream",
    "TransformConfig",
    "Voc",
    "VocConfig",
    "build",
    "config_from_dict",
    "config_to_dict",
    "label_pixels",
]
