"""What the explorer shows: an image, its unary, and its truth where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import SegmentationDataset
from data.dataset import VOID, LabelSet
from data.reading import read_ids, read_image
from eval.predict import photographs
from eval.prediction_files import SMALLEST, Ids, Picture, read_probabilities
from models import Segmenter


@dataclass(frozen=True)
class Scene:
    """One image before any CRF.

    Attributes:
        name: of the image.
        pixels: (H, W, 3) uint8 RGB.
        unary: (1, L, H, W) float32 logits.
        labels: what the ids mean.
        truth: (H, W) class ids, 255 for void; None where it is not known.
    """

    name: str
    pixels: Picture
    unary: Tensor
    labels: LabelSet
    truth: Ids | None

    @cached_property
    def image(self) -> Tensor:
        """(1, 3, H, W) float32, RGB in 0..255."""
        return image_tensor(self.pixels)

    @cached_property
    def before(self) -> Ids:
        """(H, W) ids of the network alone."""
        ids: Ids = self.unary[0].argmax(0).numpy()
        return ids

    def seen(self, least: float) -> Tensor:
        """The ids that the network gives to some pixel with a probability of at least that much."""
        return (self._largest >= least).nonzero()[:, 0]

    @cached_property
    def _largest(self) -> Tensor:
        """(L,), the largest probability of every label."""
        return self.unary[0].softmax(0).flatten(1).amax(1)


@dataclass(frozen=True)
class Source:
    """Where the parts of a scene come from; nothing is read before it is asked for.

    Attributes:
        read: the image, (H, W, 3).
        unary: its logits, (1, L, H, W).
        truth: its ids, if it has any.
        labels: what they mean.
        path: of the image, for a command line.
    """

    read: Callable[[], Picture]
    unary: Callable[[Picture], Tensor]
    truth: Callable[[], Ids] | None
    labels: LabelSet
    path: str = "IMAGES"


class Scenes:
    """Scenes by name, each made when it is first looked at.

    Args:
        sources: by name, in the order of the menu.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)
        self._made: dict[str, Scene] = {}

    @property
    def names(self) -> list[str]:
        """Of all scenes, in order."""
        return list(self.sources)

    def __getitem__(self, name: str) -> Scene:
        """The scene of that name.

        Raises:
            ValueError: the image cannot be read, or truth or unary are of another size.
        """
        if name not in self._made:
            self._made[name] = made(name, self.sources[name])
        return self._made[name]


def made(name: str, source: Source) -> Scene:
    """Read image and truth, run the network."""
    pixels = source.read()
    truth = source.truth() if source.truth is not None else None
    unary = source.unary(pixels)
    for what, size in (
        ("its probabilities are", tuple(unary.shape[2:])),
        ("its truth is", pixels.shape[:2] if truth is None else truth.shape),
    ):
        if size != pixels.shape[:2]:
            raise ValueError(
                f"{name} is {pixels.shape[0]} x {pixels.shape[1]} pixels (H x W), {what} "
                f"{size[0]} x {size[1]}: they must be equal."
            )
    if truth is not None:
        wrong = np.setdiff1d(truth, [*range(len(source.labels.classes)), VOID]).tolist()
        if wrong:
            raise ValueError(
                f"the truth of {name} holds the ids {wrong}: expected "
                f"0..{len(source.labels.classes) - 1} or {VOID} (void)."
            )
    return Scene(name, pixels, unary, source.labels, truth)


def of_network(
    segmenter: Segmenter, labels: LabelSet, images: Sequence[Path], truths: Sequence[Path]
) -> Scenes:
    """Scenes of files, seen by a network.

    Args:
        segmenter: in eval mode.
        labels: its classes.
        images: files and folders.
        truths: masks of ids, one for each image in order; or none.

    Raises:
        FileNotFoundError: no image.
        ValueError: as many masks as images are needed, or two images share a stem.
    """
    sources = {}
    for path, truth in _with_truths(images, truths):
        sources[path.stem] = Source(
            _photograph(path), logits_of(segmenter), truth, labels, str(path)
        )
    return Scenes(sources)


def of_split(
    segmenter: Segmenter, labels: LabelSet, dataset: SegmentationDataset, images: Sequence[Path]
) -> Scenes:
    """Scenes of a data set, with their truth.

    Args:
        segmenter: in eval mode.
        labels: its classes.
        dataset: a split.
        images: names of the split, or files of these names; none for all.

    Raises:
        ValueError: the split has no image of that name.
    """
    names = [path.stem for path in images] or list(dataset.names)
    unknown = [name for name in names if name not in dataset.names]
    if unknown:
        raise ValueError(
            f"--split: there is no image {', '.join(unknown)} in it; it has "
            f"{', '.join(dataset.names[:3])} and {len(dataset) - 3} others."
        )

    def source(index: int) -> Source:
        return Source(
            lambda: np.ascontiguousarray(dataset[index].image.permute(1, 2, 0).numpy()),
            logits_of(segmenter),
            lambda: dataset[index].mask.numpy(),
            labels,
        )

    return Scenes({name: source(dataset.names.index(name)) for name in names})


def of_probabilities(path: Path, images: Sequence[Path], truths: Sequence[Path]) -> Scenes:
    """Scenes of files with stored probabilities, those before the CRF.

    Args:
        path: NAME.npz, or a folder with NAME.npz for every image.
        images: files and folders.
        truths: masks of ids, one for each image in order; or none.

    Raises:
        FileNotFoundError: no image, or no probabilities of one.
        ValueError: a file is damaged or of other classes than the others.
    """
    sources: dict[str, Source] = {}
    for image, truth in _with_truths(images, truths):
        file = path / f"{image.stem}.npz" if path.is_dir() else path
        if file.stem != image.stem:
            raise ValueError(
                f"{file} is of the image {file.stem!r}, got {image}: pass the image it was made "
                "of, or the folder of probabilities."
            )
        held = read_probabilities(file)
        logits = torch.from_numpy(held.unary.astype(np.float32)).clamp_min(SMALLEST).log()[None]
        sources[image.stem] = Source(
            _photograph(image), _always(logits), truth, held.labels, str(image)
        )
    if len({source.labels.classes for source in sources.values()}) > 1:
        raise ValueError(f"{path}: the probabilities are of different classes: explore them apart.")
    return Scenes(sources)


def logits_of(segmenter: Segmenter) -> Callable[[Picture], Tensor]:
    """What a network says about a picture: (1, L, H, W) on the CPU."""

    @torch.no_grad()
    def unary(pixels: Picture) -> Tensor:
        return segmenter.unary(image_tensor(pixels).to(segmenter.device)).cpu()

    return unary


def image_tensor(pixels: Picture) -> Tensor:
    """A picture as the models take it: (1, 3, H, W) float32, RGB in 0..255."""
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))


def _photograph(path: Path) -> Callable[[], Picture]:
    return lambda: read_image(path)


def _with_truths(
    images: Sequence[Path], truths: Sequence[Path]
) -> list[tuple[Path, Callable[[], Ids] | None]]:
    paths = photographs(images)
    if truths and len(truths) != len(paths):
        raise ValueError(
            f"--truth: expected one mask for each of the {len(paths)} images in order, got "
            f"{len(truths)}."
        )
    readers: list[Callable[[], Ids] | None] = [_mask(path) for path in truths]
    return list(zip(paths, readers or [None] * len(paths), strict=True))


def _mask(path: Path) -> Callable[[], Ids]:
    return lambda: read_ids(path)


def _always(logits: Tensor) -> Callable[[Picture], Tensor]:
    return lambda _: logits
