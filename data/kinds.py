"""Every data set by its kind, and the sets of labels that masks may be shown in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import camvid, cityscapes, pascal_context, person_part, voc
from data.camvid import CamVid, CamVidConfig
from data.cityscapes import Cityscapes, CityscapesConfig
from data.coco import Coco, CocoConfig
from data.collage import CLASSES as COLLAGE_CLASSES
from data.collage import Collage, CollageConfig
from data.dataset import SegmentationDataset, Split, palette_of
from data.folder import Folder, FolderConfig, read_classes
from data.pascal_context import PascalContext, PascalContextConfig
from data.person_part import PersonPart, PersonPartConfig
from data.reading import PairedDataset, scored_ids
from data.voc import Voc, VocConfig

# The kinds of data sets by name: their configs, and what reads them.

RootedConfig = (
    VocConfig
    | CityscapesConfig
    | PascalContextConfig
    | PersonPartConfig
    | CamVidConfig
    | CocoConfig
    | FolderConfig
)
"""The configs of data sets that lie in a folder, `root`."""

DataConfig = CollageConfig | RootedConfig

READERS: dict[type[Any], type[PairedDataset[Any]]] = {
    VocConfig: Voc,
    CityscapesConfig: Cityscapes,
    PascalContextConfig: PascalContext,
    PersonPartConfig: PersonPart,
    CamVidConfig: CamVid,
    CocoConfig: Coco,
    FolderConfig: Folder,
}

KINDS: dict[str, type[Any]] = {
    "collage": CollageConfig,
    "voc": VocConfig,
    "cityscapes": CityscapesConfig,
    "pascal-context": PascalContextConfig,
    "person-part": PersonPartConfig,
    "camvid": CamVidConfig,
    "coco": CocoConfig,
    "folder": FolderConfig,
}

_PATHS = ("root", "sbd")  # the fields that hold a path


def config_to_dict(config: DataConfig) -> dict[str, Any]:
    """A config as plain values with its kind, for checkpoints and JSON."""
    kind = next(name for name, type_ in KINDS.items() if isinstance(config, type_))
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    return {"kind": kind, **plain}


def config_from_dict(values: dict[str, Any]) -> DataConfig:
    """The config that `config_to_dict` wrote, also after JSON made lists of its tuples.

    Raises:
        ValueError: of an unknown kind, or written by another version.
    """
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"data kind must be one of {', '.join(KINDS)}; got {kind!r}")
    for name in _PATHS:
        if fields.get(name) is not None:
            fields[name] = Path(fields[name])
    try:
        config: DataConfig = KINDS[kind](**fields)
    except TypeError as error:
        raise ValueError(f"the config of {kind} is of another version: {error}") from error
    return config


def build(config: DataConfig, split: Split) -> SegmentationDataset:
    """The data set that a config describes.

    Raises:
        FileNotFoundError: files of the data set are absent; the message says which option to pass.
        PermissionError: they may not be read.
        ValueError: the config or a list is inconsistent.
    """
    if isinstance(config, CollageConfig):
        return Collage(config, split)
    return READERS[type(config)](config, split)


# What the ids of a data set mean, known from its config alone: names, colours, and the score.


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
