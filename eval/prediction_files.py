"""Masks as files, and drawn over their photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data.dataset import Ids, LabelSet, Picture, overlay
from models import SegmenterOutput

# A prediction's probabilities as a file: NAME.npz.
#
# The file holds
#
# - "unary": (L, H, W) float16, the network's probabilities at the image's size,
# - "crf": likewise, behind the CRF; absent without one,
# - "classes": (L,) names, "scored": the ids whose IoU is averaged, "palette": (256, 3) uint8.
#
# NumPy reads it (`numpy.load(path)["unary"]`), without objects, so it runs no code. Half
# precision has 11 bits and ends at 6e-8: what is less likely is 0.

Floats = NDArray[np.float16]

SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
"""What 0 stands for at most, 2**-24."""


@dataclass(frozen=True)
class Probabilities:
    """Of one image.

    Attributes:
        labels: what the ids mean.
        unary: (L, H, W) float16, of the network.
        crf: (L, H, W) float16, behind the CRF; None without one.
    """

    labels: LabelSet
    unary: Floats
    crf: Floats | None


def write_probabilities(path: Path, probabilities: Probabilities) -> None:
    """Write the file, in place of another of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    maps: dict[str, Any] = {"unary": probabilities.unary}
    if probabilities.crf is not None:
        maps["crf"] = probabilities.crf
    labels = probabilities.labels
    np.savez_compressed(
        path,
        classes=np.array(labels.classes),
        scored=np.array(labels.scored),
        palette=labels.palette,
        **maps,
    )


def read_probabilities(path: Path) -> Probabilities:
    """Read and check a file that `python -m eval predict --write probabilities` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or holds something else; says what.
    """
    expected = "expected a file of `python -m eval predict ... --write probabilities`"
    if not path.is_file():
        raise FileNotFoundError(f"no probabilities at {path}: {expected}.")
    if not is_zipfile(path):
        raise ValueError(f"{path} is damaged or no .npz file: {expected}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (BadZipFile, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): {expected}.") from error
    missing = sorted({"unary", "classes", "scored", "palette"} - held.keys())
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: {expected}.")
    classes = tuple(map(str, held["classes"]))
    unary, crf = held["unary"], held.get("crf")
    for name, q in (("unary", unary), ("crf", crf)):
        if q is not None and (q.ndim != 3 or len(q) != len(classes) or q.shape != unary.shape):
            raise ValueError(
                f"{path}: {name} must be ({len(classes)}, H, W), one map for each class, got "
                f"{q.shape}."
            )
    # L roundings of half precision, each of at most 2**-11 of its value, and a margin.
    if not np.allclose(unary.astype(np.float32).sum(0), 1, atol=0.01):
        raise ValueError(
            f"{path}: the probabilities must sum to one over the classes: are these logits?"
        )
    labels = LabelSet(classes, tuple(map(int, held["scored"])), held["palette"])
    return Probabilities(labels, unary, crf)


# The files that a prediction is written to: what they are called, and what they hold.

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
    """Say where and how predictions are written; files of the same names are replaced.

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
