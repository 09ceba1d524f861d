"""What the ids of a data set mean, known from its config alone: names, colours, and the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import camvid, cityscapes, pascal_context, person_part, voc
from data.camvid import CamVidConfig
from data.cityscapes import CityscapesConfig
from data.coco import CocoConfig
from data.collage import CollageConfig
from data.collage.sources import CLASSES as COLLAGE_CLASSES
from data.folder import FolderConfig
from data.folder_classes import read_classes
from data.kinds import DataConfig
from data.labels import scored_ids
from data.palette import palette_of
from data.pascal_context import PascalContextConfig
from data.person_part import PersonPartConfig
from data.voc import VocConfig


@dataclass(frozen=True)
class LabelSet:
    """As the attributes of `SegmentationDataset` of the same names.

    Attributes:
        classes: the name of every class id.
        scored: the ids whose IoU is averaged, ascending.
        palette: (256, 3) uint8 RGB, the colour of every id.
    """

    classes: tuple[str, ...]
    scored: tuple[int, ...]
    palette: NDArray[np.uint8]


def label_set(config: DataConfig) -> LabelSet:
    """The classes of a data set that need not lie here: a model outlives the data it was made with.

    Only `folder` keeps them in a file, classes.json below its root.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is malformed.
    """
    classes: tuple[str, ...]
    scored: Sequence[str] = ()
    colours: Sequence[Sequence[int]] = ()
    match config:
        case CollageConfig():
            classes = COLLAGE_CLASSES
        case VocConfig() | CocoConfig():
            classes, scored = voc.CLASSES, config.scored
        case CamVidConfig():
            classes, scored, colours = camvid.CLASSES, config.scored, camvid.COLOURS
        case CityscapesConfig():
            classes, scored, colours = cityscapes.CLASSES, config.scored, cityscapes.COLOURS
        case PascalContextConfig():
            classes = pascal_context.CLASSES[60 - config.classes :]
            scored = config.scored
        case PersonPartConfig():
            classes, scored = person_part.CLASSES, config.scored
        case FolderConfig():
            read = read_classes(config.root / "classes.json")
            classes, scored, colours = read.names, read.scored, read.colours
    return LabelSet(classes, scored_ids(scored, classes), palette_of(colours))
