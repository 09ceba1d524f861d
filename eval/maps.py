"""Folders of maps, photographs and masks, as `python -m eval tune` searches on them."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.folder import (
    IMAGE_ENDINGS,
    MAP_ENDINGS,
    files_by_name,
    named_labels,
    read_image,
    read_maps,
    resized,
)
from crfrnn.refine import CLIP, Kind, MapReader, Nodata
from data import VOID, Sample, SegmentationDataset
from data.dataset import label_set_of
from data.reading import read_ids
from models import CrfConfig
from models.crf import SEARCHED

FOREGROUND = {0, VOID}  # what masks of two labels often hold


@dataclass(frozen=True)
class MapsOptions:
    """Say where the photographs and the masks of a folder of maps are, and what the maps hold.

    Attributes:
        images: folder of photographs.
        masks: folder of masks NAME.png, for a few of them: the value is the class id, 255 unknown.
        kind, certainty, num_labels, background, nodata: of `crfrnn refine`.
        trust_pickles: likewise.
    """

    images: Path | None = None
    masks: Path | None = None
    kind: Kind | None = None
    certainty: float = 0.7
    num_labels: int | None = None
    background: float | None = None
    nodata: Nodata = "error"
    trust_pickles: bool = False

    def given(self) -> dict[str, Any]:
        """Return what differs from the defaults of `refine`."""
        names = ("kind", "certainty", "num_labels", "background", "nodata")
        return {n: v for n in names if (v := getattr(self, n)) != getattr(MapsOptions, n)}


class FolderOfMaps(SegmentationDataset):
    """The photographs that have both maps and a mask, and log P of each.

    It stands for the network, too: its maps are as large as the image already.

    Args:
        maps: the folder, in the formats of `crfrnn refine`.
        options: the other folders.
        device: where log P is to be.

    Raises:
        ValueError: a folder is not given, or no photograph has maps and a mask; labels that do not
            fit.
        FileNotFoundError: a folder does not exist.
    """

    has_void = False

    def __init__(self, maps: Path, options: MapsOptions, device: torch.device) -> None:
        if options.images is None or options.masks is None:
            raise ValueError(
                f"{maps} is a folder of maps: pass --maps.images and --maps.masks, the folders of "
                "photographs and of masks for a few of them."
            )
        self.options, self.device = options, device
        self._maps = files_by_name(maps, MAP_ENDINGS)
        self._images = files_by_name(options.images, IMAGE_ENDINGS)
        self._masks = files_by_name(options.masks, (".png",))
        self.names = tuple(n for n in self._masks if n in self._images and n in self._maps)
        if not self.names:
            raise ValueError(
                f"no photograph of {options.images} has both maps in {maps} and a mask NAME.png in "
                f"{options.masks}."
            )
        stored = {int(i) for name in self.names for i in np.unique(read_ids(self._masks[name]))}
        self._is_foreground = stored == FOREGROUND
        ids = {1 if i == VOID else i for i in stored} if self._is_foreground else stored - {VOID}
        self._reader = MapReader(
            options.kind, options.certainty, None, options.background, options.nodata, VOID
        )
        count = options.num_labels or self._count(ids)
        self._reader = replace(self._reader, num_labels=count)
        if not ids or max(ids) >= count:
            raise ValueError(
                f"{options.masks} holds the ids {sorted(stored)}, the maps have {count} labels: a "
                f"mask holds 0..{count - 1}, and {VOID} where nothing is known."
            )
        labels = label_set_of([str(i) for i in range(count)], [str(i) for i in sorted(ids)])
        self.classes, self.scored, self.palette = labels.classes, labels.scored, labels.palette

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image, ids = read_image(self._images[name]), read_ids(self._masks[name])
        if image.shape[:2] != ids.shape:
            raise ValueError(f"{self._masks[name]} is {ids.shape}, its image {image.shape[:2]}.")
        mask = (ids == VOID).astype(np.int64) if self._is_foreground else ids.astype(np.int64)
        planar = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        return Sample(name, planar, torch.from_numpy(mask))

    def logits(self, sample: Sample) -> Tensor:
        """Return log P of all labels, (1, L, H, W); those that the file does not name get `CLIP`.

        A pixel that would be left out has 1 / L.
        """
        maps, labels = self._read(sample.name)
        p, _ = self._reader.read(resized(maps, (sample.image.shape[1], sample.image.shape[2])))
        if labels is not None:
            every = p.new_full((len(self.classes), *p.shape[1:]), CLIP)
            every[torch.as_tensor(labels)] = p
            p = every
        if len(p) != len(self.classes):
            raise ValueError(f"{self._maps[sample.name]} has {len(p)} of {len(self.classes)} maps.")
        return p.clamp(CLIP, 1).log()[None]

    def enlarge(self, logits: Tensor, _: torch.Size) -> Tensor:
        """Return them: they are as large as the image."""
        return logits

    @cached_property
    def digest(self) -> str:
        """A digest of all files that the scores depend on."""
        digest = hashlib.sha256(repr(self.options.given()).encode())
        for name in self.names:
            for path in (self._maps[name], self._images[name], self._masks[name]):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()[:32]

    def _read(self, name: str) -> tuple[Tensor, Any]:
        maps, labels = read_maps(self._maps[name], trust_pickles=self.options.trust_pickles)
        return maps, named_labels(labels, maps, self.options.background)

    def _count(self, ids: set[int]) -> int:
        """Count the labels: as many as maps, or the highest id where files or pixels name them."""
        count = 0
        for name in self.names:
            maps, labels = self._read(name)
            if labels is not None:
                count = max(count, *(1 + int(label) for label in (*labels, *ids)))
            else:
                p, _ = self._reader.read(maps)
                named = maps.ndim == 2 and not maps.is_floating_point()
                count = max(count, len(p), *(1 + label for label in ids if named))
        return count


def refine_lines(
    folders: FolderOfMaps, maps: Path, setting: CrfConfig, label_bias: Sequence[float]
) -> dict[str, str]:
    """Write what to paste, for one image and for the folder.

    Args:
        folders: that were searched on.
        maps: the folder of maps.
        setting: the CRF.
        label_bias: (L,); () for none.
    """
    values: dict[str, Any] = {name: getattr(setting, name) for name in SEARCHED}
    values["num_iterations"] = setting.num_iterations_eval
    values["normalization"] = setting.normalization
    values["output_scale"] = setting.output_scale
    values |= folders.options.given()
    if label_bias:
        values["label_bias"] = [float(f"{value:.6g}") for value in label_bias]
    arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
    words = ["crfrnn", "refine", str(folders.options.images), str(maps), "--out", "masks"]
    for name, value in values.items():
        several = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, several)]
    return {
        "code": f"from crfrnn import refine\nq = refine(maps, image, {arguments})",
        "refine": shlex.join(words),
    }
