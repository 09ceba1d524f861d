"""Lists and masks of VOC 2012 that are published as rules: trainaug, and the animal subset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from data.labels import to_labels
from data.listing import file_names, read_lines, require_folders, require_names
from data.parallel import map_files
from data.prepare.output import Output
from data.reading import read_ids
from data.voc import ANIMALS, CLASSES, TABLE, list_path

Track = Callable[[Iterable[str], int], Iterable[str]]

SBD_LAYOUT = (
    "the folder of SBD with cls, train.txt and val.txt directly below it; pass it as --sbd "
    ".../benchmark_RELEASE/dataset"
)
VOC_LAYOUT = "the VOC2012 folder, with SegmentationClass and ImageSets/Segmentation below it"
TRAINAUG = 10582
ANIMAL_COUNTS = {"animals_train": 439, "animals_tune": 217, "animals_report": 228}


def names_of(path: Path) -> tuple[str, ...]:
    """The names of a list."""
    return require_names(read_lines(path, "the folder that was given"), path)


def trainaug(root: Path, sbd: Path) -> tuple[str, ...]:
    """The training images of VOC 2012 with those of SBD: (train + SBD) without val, sorted.

    SBD (Hariharan et al., ICCV 2011) labels both images that VOC trains on and images that VOC
    validates on; only the latter are left out. 10,582 names.

    Args:
        root: the VOC2012 folder.
        sbd: benchmark_RELEASE/dataset.

    Raises:
        FileNotFoundError: a list is absent.
        ValueError: a list is malformed.
    """
    require_folders(root, ("SegmentationClass", "ImageSets/Segmentation"), VOC_LAYOUT)
    require_folders(sbd, ("cls",), SBD_LAYOUT)
    official = {name: names_of(list_path(root, name)) for name in ("train", "val")}
    extra = {*names_of(sbd / "train.txt"), *names_of(sbd / "val.txt")}
    return tuple(sorted(({*official["train"]} | extra) - {*official["val"]}))


def write_trainaug_masks(
    root: Path, sbd: Path, names: tuple[str, ...], output: Output, track: Track
) -> None:
    """Write SegmentationClassAug: the mask of VOC where there is one, else that of SBD.

    Raises:
        CorruptSample: a mask cannot be read, or holds an id of no class.
        FileNotFoundError: neither has a mask of a name.
        FileExistsError: another mask is there.
    """
    official = file_names(root / "SegmentationClass")
    for name in track(names, len(names)):
        path = root / "SegmentationClass" / f"{name}.png"
        if path.name not in official:
            path = sbd / "cls" / f"{name}.mat"
        ids = read_ids(path)
        to_labels(ids, TABLE, path)
        output.mask(root / "SegmentationClassAug" / f"{name}.png", ids)


def animals(
    root: Path, held_out: Callable[[str], bool], track: Track, workers: int | None = None
) -> dict[str, tuple[str, ...]]:
    """The animal subset of VOC 2012: images that show a cat, cow, dog, horse or sheep.

    Its train is that of VOC; of VOC's val, report takes the images that are held out and tune the
    others, so that a network that was trained with SBD has seen no image of report.

    Args:
        root: the VOC2012 folder with the lists train and val.
        held_out: whether an image of val belongs to report.
        track: shows progress.
        workers: processes that read masks.

    Returns:
        animals_train, animals_tune and animals_report: 439, 217 and 228 names.

    Raises:
        CorruptSample: a mask cannot be read, or holds an id of no class.
        FileNotFoundError: a mask or a list is absent.
    """
    require_folders(root, ("SegmentationClass", "ImageSets/Segmentation"), VOC_LAYOUT)
    train, val = (names_of(list_path(root, name)) for name in ("train", "val"))
    every = (*train, *val)
    shows = partial(_shows_an_animal, folder=root / "SegmentationClass")
    answers = _aligned(map_files(shows, every, workers), every, track)
    chosen = {name for name, answer in zip(every, answers, strict=True) if answer}
    return {
        "animals_train": tuple(name for name in train if name in chosen),
        "animals_tune": tuple(name for name in val if name in chosen and not held_out(name)),
        "animals_report": tuple(name for name in val if name in chosen and held_out(name)),
    }


def _aligned(answers: Iterator[bool], names: tuple[str, ...], track: Track) -> list[bool]:
    return [next(answers) for _ in track(names, len(names))]


def _shows_an_animal(name: str, folder: Path) -> bool:
    path = folder / f"{name}.png"
    labels = to_labels(read_ids(path), TABLE, path)
    wanted = [CLASSES.index(animal) for animal in ANIMALS if animal not in ("background", "person")]
    return bool(np.isin(labels, wanted).any())


def outside_sbd(sbd: Path) -> Callable[[str], bool]:
    """Held out is what SBD's own train.txt does not name.

    Raises:
        FileNotFoundError: it is absent.
    """
    require_folders(sbd, (), SBD_LAYOUT)
    seen = frozenset(names_of(sbd / "train.txt"))
    return lambda name: name not in seen


def inside_list(path: Path) -> Callable[[str], bool]:
    """Held out is what a list names, such as seg11valid (736 images of VOC 2011's val).

    Raises:
        FileNotFoundError: it is absent.
    """
    named = frozenset(names_of(path))
    return lambda name: name in named
