"""Load what the explorer shows: an image, a network's logits, and the truth if it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import SegmentationDataset
from data.dataset import VOID, Ids, LabelSet, Picture
from data.reading import read_ids, read_image
from eval.predict import image_tensor, photographs
from eval.prediction_files import SMALLEST, read_probabilities
from models import Segmenter


@dataclass(frozen=True)
class Scene:
    """One image before any CRF.

    Attributes:
        name: of the image.
        pixels: (H, W, 3) uint8 RGB.
        unary: (1, L, H, W) float32 logits.
        truth: (H, W) class ids, 255 for void; None where it is not known.

    Raises:
        ValueError: truth or unary are of another size, or the truth holds other ids.
    """

    name: str
    pixels: Picture
    unary: Tensor
    truth: Ids | None = None

    def __post_init__(self) -> None:
        height, width, _ = self.pixels.shape
        sizes = {"its probabilities are": tuple(self.unary.shape[2:])}
        if self.truth is not None:
            sizes["its truth is"] = self.truth.shape
        for what, size in sizes.items():
            if size != (height, width):
                raise ValueError(
                    f"{self.name} is {height} x {width} pixels (H x W), {what} {size[0]} x "
                    f"{size[1]}: they must be equal."
                )
        last = self.unary.shape[1] - 1
        ids = set() if self.truth is None else set(np.unique(self.truth).tolist())
        wrong = sorted(ids - {*range(last + 1), VOID})
        if wrong:
            raise ValueError(
                f"the truth of {self.name} holds the ids {wrong}: expected 0..{last} or {VOID} "
                "(void)."
            )

    @cached_property
    def image(self) -> Tensor:
        """(1, 3, H, W) float32, RGB in 0..255."""
        return image_tensor(self.pixels, self.unary.device)

    @cached_property
    def before(self) -> Ids:
        """(H, W) ids of the network alone."""
        ids: Ids = self.unary[0].argmax(0).numpy()
        return ids

    @cached_property
    def most_likely(self) -> Tensor:
        """(L,) largest probability of every label."""
        return self.unary[0].softmax(0).flatten(1).amax(1)


class Scenes:
    """Scenes by name, each loaded when it is first looked at.

    Args:
        labels: names and colours of the classes.
        loaders: what loads a scene, by name, in the order of the menu.
        paths: of the images, for a command line; by name, none where they have none.
    """

    def __init__(
        self,
        labels: LabelSet,
        loaders: Mapping[str, Callable[[], Scene]],
        paths: Mapping[str, Path] | None = None,
    ) -> None:
        self.labels = labels
        self.loaders = dict(loaders)
        self.paths = paths or {}
        self._loaded: dict[str, Scene] = {}

    def __getitem__(self, name: str) -> Scene:
        """Return a scene.

        Raises:
            ValueError: the image cannot be read, or truth or unary do not fit it.
        """
        if name not in self._loaded:
            self._loaded[name] = self.loaders[name]()
        return self._loaded[name]


def of_network(
    segmenter: Segmenter, labels: LabelSet, images: Sequence[Path], truths: Sequence[Path]
) -> Scenes:
    """Make scenes of files, seen by a network in eval mode.

    Args:
        segmenter: the network.
        labels: its classes.
        images: files and folders.
        truths: masks of ids, one for each image in order; or none.

    Raises:
        FileNotFoundError: no image.
        ValueError: as many masks as images are needed, or two images share a stem.
    """

    def load(path: Path, truth: Path | None) -> Scene:
        pixels = read_image(path)
        ids = None if truth is None else read_ids(truth)
        return Scene(path.stem, pixels, logits_of(segmenter, pixels), ids)

    paths = with_truths(images, truths)
    loaders = {path.stem: partial(load, path, truth) for path, truth in paths.items()}
    return Scenes(labels, loaders, {path.stem: path for path in paths})


def of_split(segmenter: Segmenter, dataset: SegmentationDataset, images: Sequence[Path]) -> Scenes:
    """Make scenes of a data set, with their truth.

    Args:
        segmenter: in eval mode.
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

    def load(name: str) -> Scene:
        sample = dataset[dataset.names.index(name)]
        unary = logits_of(segmenter, sample.pixels)
        return Scene(name, sample.pixels, unary, sample.mask.numpy())

    labels = LabelSet(dataset.classes, dataset.scored, dataset.palette)
    return Scenes(labels, {name: partial(load, name) for name in names})


def of_probabilities(path: Path, images: Sequence[Path], truths: Sequence[Path]) -> Scenes:
    """Make scenes of files with stored probabilities, those before the CRF.

    Args:
        path: NAME.npz, or a folder with NAME.npz for every image.
        images: files and folders.
        truths: masks of ids, one for each image in order; or none.

    Raises:
        FileNotFoundError: no image, or no probabilities of one.
        ValueError: a file is damaged or of other classes than the others.
    """

    def load(image: Path, truth: Path | None, unary: Tensor) -> Scene:
        ids = None if truth is None else read_ids(truth)
        return Scene(image.stem, read_image(image), unary, ids)

    paths = with_truths(images, truths)
    loaders, label_sets = {}, {}
    for image, truth in paths.items():
        file = path / f"{image.stem}.npz" if path.is_dir() else path
        if file.stem != image.stem:
            raise ValueError(
                f"{file} is of the image {file.stem!r}, got {image}: pass the image it was made "
                "of, or the folder of probabilities."
            )
        stored = read_probabilities(file)
        unary = torch.from_numpy(stored.unary.astype(np.float32)).clamp_min(SMALLEST).log()[None]
        loaders[image.stem] = partial(load, image, truth, unary)
        label_sets[stored.labels.classes] = stored.labels
    if len(label_sets) > 1:
        raise ValueError(f"{path}: the probabilities are of different classes: explore them apart.")
    (labels,) = label_sets.values()
    return Scenes(labels, loaders, {image.stem: image for image in paths})


@torch.no_grad()
def logits_of(segmenter: Segmenter, pixels: Picture) -> Tensor:
    """Run a network on an image: (1, L, H, W) on the CPU."""
    return segmenter.unary(image_tensor(pixels, segmenter.device)).cpu()


def with_truths(images: Sequence[Path], truths: Sequence[Path]) -> dict[Path, Path | None]:
    """Pair the images among files and folders with the masks given for them, if any."""
    paths = photographs(images)
    if truths and len(truths) != len(paths):
        raise ValueError(
            f"--truth: expected one mask for each of the {len(paths)} images in order, got "
            f"{len(truths)}."
        )
    masks: Sequence[Path | None] = truths or [None] * len(paths)
    return dict(zip(paths, masks, strict=True))
