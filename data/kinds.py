"""Every data set by its kind: configs as plain values, and what they build."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.camvid import CamVidConfig
from data.cityscapes import CityscapesConfig
from data.coco import CocoConfig
from data.collage import Collage, CollageClicksConfig, CollageConfig
from data.dataset import SegmentationDataset, Split
from data.folder import FolderConfig
from data.paired import PairedDataset, RootedConfig
from data.voc import VocClicksConfig, VocConfig
from data.voc2010 import PascalContextConfig, PersonPartConfig

DataConfig = CollageConfig | RootedConfig

KINDS: dict[str, type[Any]] = {
    config.kind: config
    for config in (
        CollageConfig,
        VocConfig,
        CityscapesConfig,
        PascalContextConfig,
        PersonPartConfig,
        CamVidConfig,
        CocoConfig,
        FolderConfig,
        CollageClicksConfig,
        VocClicksConfig,
    )
}
"""The configs of all data sets by name."""

_PATHS = ("root", "sbd")  # the fields that hold a path


def build(config: DataConfig, split: Split) -> SegmentationDataset:
    """Open a split of the data set that a config describes.

    Raises:
        FileNotFoundError: files of the data set are absent; the message says which option to pass.
        PermissionError: they may not be read.
        ValueError: the config or a list is inconsistent.
    """
    if isinstance(config, CollageConfig):
        return Collage(config, split)
    return PairedDataset(config, split)


def config_to_dict(config: DataConfig) -> dict[str, Any]:
    """Write a config as plain values with its kind, for checkpoints and JSON."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    return {"kind": config.kind, **plain}


def config_from_dict(values: dict[str, Any]) -> DataConfig:
    """Make the config that `config_to_dict` wrote, also after JSON made lists of its tuples.

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
