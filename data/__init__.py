"""Data sets as the models see them: configs, splits, transforms and the training stream."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.collage import Collage, CollageConfig
from data.dataset import SegmentationDataset, Split
from data.sample import VOID, CorruptSample, Sample
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
    "CorruptSample",
    "DataConfig",
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
]


_KINDS: dict[str, type[CollageConfig] | type[VocConfig]] = {
    "collage": CollageConfig,
    "voc": VocConfig,
}
_PATHS = ("root", "sbd")  # the fields that hold a path


def config_to_dict(config: DataConfig) -> dict[str, Any]:
    """A config as plain values with its kind, for checkpoints and JSON."""
    kind = next(name for name, type_ in _KINDS.items() if isinstance(config, type_))
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    return {"kind": kind, **plain}


def config_from_dict(values: dict[str, Any]) -> DataConfig:
    """The config that `config_to_dict` wrote, also after JSON made lists of its tuples.

    Raises:
        ValueError: of an unknown kind, or written by another version.
    """
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"data kind must be one of {', '.join(_KINDS)}; got {kind!r}")
    for name in _PATHS:
        if fields.get(name) is not None:
            fields[name] = Path(fields[name])
    try:
        return _KINDS[kind](**fields)
    except TypeError as error:
        raise ValueError(f"the config of {kind} is of another version: {error}") from error


def build(config: DataConfig, split: Split) -> SegmentationDataset:
    """The data set that a config describes.

    Raises:
        FileNotFoundError: files of the data set are absent; the message says which option to pass.
        PermissionError: they may not be read.
        ValueError: the config or a list is inconsistent.
    """
    if isinstance(config, CollageConfig):
        return Collage(config, split)
    return Voc(config, split)
