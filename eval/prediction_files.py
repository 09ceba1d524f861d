"""The files that a prediction is written to: what they are called, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from data.kinds import LabelSet
from eval.overlay import Ids, Picture, overlay
from eval.probabilities import Floats, Probabilities, write_probabilities
from models import SegmenterOutput

Kind = Literal["masks", "overlays", "probabilities", "submission"]

# The layout of a submission: VOC 2012 development kit, VOCinit.m, resdir and seg.clsrespath, for
# competition 6, which allows any training data.
PLACES: dict[Kind, tuple[Path, str]] = {
    "masks": (Path("masks"), ".png"),
    "overlays": (Path("overlays"), ".jpg"),
    "probabilities": (Path("probabilities"), ".npz"),
    "submission": (Path("results", "VOC2012", "Segmentation", "comp6_test_cls"), ".png"),
}
"""Folder and ending of every kind."""


@dataclass(frozen=True)
class PredictionFiles:
    """Where and how predictions are written; files of the same names are replaced.

    Attributes:
        out: the folder.
        kinds: what is written about every image.
        labels: names and colours of the classes.
    """

    out: Path
    kinds: tuple[Kind, ...]
    labels: LabelSet

    def paths(self, name: str) -> dict[Kind, Path]:
        """The files about the image of that name."""
        return {
            kind: self.out / folder / f"{name}{ending}"
            for kind, (folder, ending) in PLACES.items()
            if kind in self.kinds
        }

    def write(self, name: str, pixels: Picture, output: SegmenterOutput) -> None:
        """Write all of them.

        Args:
            name: of the image.
            pixels: (H, W, 3) uint8 RGB.
            output: (1, L, H, W) logits.
        """
        ids = output.logits.argmax(1)[0].cpu().numpy()
        for kind, path in self.paths(name).items():
            if kind == "overlays":
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(overlay(pixels, ids, self.labels.palette)).save(path, quality=90)
            elif kind == "probabilities":
                crf = None if output.crf is None else probabilities_of(output.crf)
                held = Probabilities(self.labels, probabilities_of(output.unary), crf)
                write_probabilities(path, held)
            else:
                write_mask(path, ids, self.labels.palette)


def probabilities_of(logits: Tensor) -> Floats:
    """The softmax of (1, L, H, W) logits: (L, H, W) float16."""
    q: Floats = logits.softmax(1)[0].half().cpu().numpy()
    return q


def write_mask(path: Path, ids: Ids, palette: Picture) -> None:
    """Write (H, W) ids as a palette PNG (mode P): the index is the class id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # convert("P") of a grey image keeps its values as indices.
    picture = Image.fromarray(ids.astype(np.uint8)).convert("P")
    picture.putpalette(palette.tobytes())
    picture.save(path)
