"""The kinds of data sets by name: their configs, and what reads them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.camvid import CamVid, CamVidConfig
from data.cityscapes import Cityscapes, CityscapesConfig
from data.coco import Coco, CocoConfig
from data.collage import Collage, CollageConfig
from data.dataset import SegmentationDataset, Split
from data.folder import Folder, FolderConfig
from data.paired import PairedDataset
from data.pascal_context import PascalContext, PascalContextConfig
from data.person_part import PersonPart, PersonPartConfig
from data.voc import Voc, VocConfig

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
