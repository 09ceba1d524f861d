"""Turn the annotations of a data set, as published, into masks of labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.io import loadmat

from data.cityscapes import TABLES, CityscapesConfig
from data.coco import TABLE as COCO_TABLE
from data.dataset import VOID, CorruptSample, voc_palette
from data.paired import to_labels
from data.reading import (
    Ids,
    file_names,
    map_files,
    naming,
    read_ids,
    read_lines,
    require_folders,
    require_names,
)
from data.voc import ANIMALS, CLASSES, TABLE, list_path
from data.voc2010 import PART_CLASSES, PersonPartConfig

# Writing derived files: whole or not at all, and never over something else.


class Output:
    """Writes files that may be there already, from an earlier call.

    A file appears under its name only when it is complete. One that holds what would be written is
    kept; one that holds anything else is left alone, unless `force` replaces it.

    Args:
        force: replace files of other content.
    """

    def __init__(self, *, force: bool) -> None:
        self.force = force
        self.written = 0
        self.kept = 0

    def lines(self, path: Path, lines: tuple[str, ...]) -> None:
        """Write a list.

        Raises:
            FileExistsError: there is another file of this name, and not `force`.
        """
        content = "".join(f"{line}\n" for line in lines).encode()
        self._write(path, content, same=path.is_file() and path.read_bytes() == content)

    def mask(self, path: Path, ids: Ids, palette: NDArray[np.uint8] | None = None) -> None:
        """Write an index image.

        Args:
            path: ends in .png.
            ids: (H, W) uint8.
            palette: (256, 3) uint8 RGB; the colours of VOC by default.

        Raises:
            FileExistsError: there is another mask of this name, and not `force`.
        """
        picture = Image.fromarray(ids).convert("P")  # of a grey image this keeps the values
        picture.putpalette((voc_palette() if palette is None else palette).tobytes())
        buffer = BytesIO()
        picture.save(buffer, format="PNG")
        # Compared by ids: other versions of Pillow compress differently.
        self._write(path, buffer.getvalue(), same=path.is_file() and _holds(path, ids))

    def _write(self, path: Path, content: bytes, *, same: bool) -> None:
        if same:
            self.kept += 1
            return
        if path.exists() and not self.force:
            raise FileExistsError(
                f"{path} is there and holds something else than this command writes: move it away, "
                "or pass --force to replace it"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self.written += 1

    def __str__(self) -> str:
        return f"{self.written} files written, {self.kept} were there"


def _holds(path: Path, ids: Ids) -> bool:
    try:
        return np.array_equal(read_ids(path), ids)
    except CorruptSample:
        return False


# Lists and masks of VOC 2012 that are published as rules: trainaug, and the animal subset.

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


# The masks of train ids that Cityscapes leaves to be made.

ENDING = "_gtFine_labelIds.png"


def write_train_ids(
    root: Path, output: Output, track: Callable[[Iterable[Path], int], Iterable[Path]]
) -> int:
    """Write NAME_gtFine_labelTrainIds.png beside every NAME_gtFine_labelIds.png.

    Args:
        root: the folder of Cityscapes.
        output: where files go.
        track: shows progress.

    Returns:
        How many masks there are.

    Raises:
        CorruptSample: a mask cannot be read, or holds an id that Cityscapes does not know.
        FileNotFoundError: there is no mask.
        FileExistsError: another mask is there.
    """
    require_folders(root, ("gtFine",), "the folder of Cityscapes, with gtFine directly below it")
    masks = [
        root / "gtFine" / split / city / name
        for split in ("train", "val")  # the labels of test are not published
        for city in sorted(file_names(root / "gtFine" / split))
        for name in sorted(file_names(root / "gtFine" / split / city))
        if name.endswith(ENDING)
    ]
    if not masks:
        raise FileNotFoundError(
            f"no mask {root / 'gtFine'}/{{train,val}}/CITY/*{ENDING}: unpack gtFine there"
        )
    palette = CityscapesConfig().label_set().palette
    for path in track(masks, len(masks)):
        labels = to_labels(read_ids(path), TABLES["labelIds"], path).astype(np.uint8)
        name = path.name.removesuffix(ENDING) + "_gtFine_labelTrainIds.png"
        output.mask(path.with_name(name), labels, palette)
    return len(masks)


# Which images of COCO to pre-train on.

FOLDERS = ("train2017", "val2017")


def write_lists(
    root: Path,
    min_pixels: int,
    output: Output,
    track: Callable[[Iterable[str], int], Iterable[str]],
    workers: int | None = None,
) -> dict[str, int]:
    """Write voc_lists/FOLDER.txt: the images with enough pixels of the classes of VOC.

    Chen et al., Rethinking Atrous Convolution (2017), section 4.4, keeps the images with more than
    1000 annotated pixels of those classes.

    Args:
        root: the folder of COCO.
        min_pixels: the fewest pixels of all classes of VOC but the background together.
        output: where the lists go.
        track: shows progress.
        workers: processes that read masks.

    Returns:
        How many images each list names.

    Raises:
        CorruptSample: a mask cannot be read.
        FileNotFoundError: a folder is absent, or no image has enough pixels.
        FileExistsError: another list is there.
        ValueError: min_pixels is negative.
    """
    if min_pixels < 0:
        raise ValueError(f"--min-pixels must be at least 0, got {min_pixels}")
    masks = root / "stuffthingmaps"
    require_folders(
        root,
        tuple(f"stuffthingmaps/{folder}" for folder in FOLDERS),
        "the folder of COCO, with stuffthingmaps/{train2017,val2017} below it",
    )
    counts = {}
    for folder in FOLDERS:
        names = sorted(n[:-4] for n in file_names(masks / folder) if n.endswith(".png"))
        sizes = map_files(partial(_voc_pixels, folder=masks / folder), names, workers)
        chosen = tuple(name for name in track(names, len(names)) if next(sizes) >= min_pixels)
        if not chosen:
            raise FileNotFoundError(
                f"none of the {len(names)} masks in {masks / folder} has {min_pixels} pixels of "
                "the classes of VOC"
            )
        output.lines(root / "voc_lists" / f"{folder}.txt", chosen)
        counts[folder] = len(chosen)
    return counts


def _voc_pixels(name: str, folder: Path) -> int:
    path = folder / f"{name}.png"
    labels = to_labels(read_ids(path), COCO_TABLE, path)
    return int(np.count_nonzero((labels > 0) & (labels < VOID)))


# PASCAL-Person-Part from the part annotations of VOC 2010.

# The parts of a person in Chen et al., Detect What You Can, CVPR 2014, and the class of Person-Part
# that each belongs to.
PARTS = {
    "head": ("head", "hair", "leye", "reye", "lear", "rear", "lebrow", "rebrow", "nose", "mouth"),
    "torso": ("torso", "neck"),
    "upper arms": ("luarm", "ruarm"),
    "lower arms": ("llarm", "rlarm", "lhand", "rhand"),
    "upper legs": ("luleg", "ruleg"),
    "lower legs": ("llleg", "rlleg", "lfoot", "rfoot"),
}
_CLASS_OF = {part: PART_CLASSES.index(name) for name, parts in PARTS.items() for part in parts}


def read_parts(path: Path) -> Ids | None:
    """The mask of one image, or none where it shows no person in parts.

    Args:
        path: Annotations_Part/NAME.mat.

    Returns:
        (H, W) uint8, 0 for the background and whatever belongs to no part.

    Raises:
        CorruptSample: the file cannot be decoded, or names a part that is not known.
        OSError: it cannot be opened.
    """
    with naming(path, "an annotation of parts"), path.open("rb") as file:
        objects = loadmat(file)["anno"][0, 0]["objects"][0]
        people = [thing for thing in objects if _word(thing["class"]) == "person"]
        parts = [part for person in people if person["parts"].size for part in person["parts"][0]]
        if not parts:
            return None
        ids = np.zeros(parts[0]["mask"].shape, dtype=np.uint8)
        for part in parts:
            name = _word(part["part_name"])
            if name not in _CLASS_OF:
                known = ", ".join(_CLASS_OF)
                raise CorruptSample(f"{path} names the part {name!r} of a person; known: {known}")
            ids[part["mask"] > 0] = _CLASS_OF[name]
        return ids


def _word(cell: Any) -> str:
    return str(np.ravel(cell)[0])


def write_person_part(
    root: Path,
    parts: Path,
    output: Output,
    track: Callable[[Iterable[str], int], Iterable[str]],
) -> dict[str, int]:
    """Write the masks and lists of every image of VOC 2010 that shows a person in parts.

    Args:
        root: the VOC2010 folder with ImageSets/Main/{train,val}.txt, which decide the split.
        parts: Annotations_Part as PASCAL-Part unpacks it.
        output: where files go.
        track: shows progress.

    Returns:
        How many images each list names: 1,716 in train and 1,817 in val.

    Raises:
        CorruptSample: see `read_parts`.
        FileNotFoundError: a folder or a list is absent.
        FileExistsError: another mask or list is there.
    """
    require_folders(root, ("ImageSets/Main",), "the VOC2010 folder, with ImageSets/Main below it")
    require_folders(
        parts,
        (),
        "the folder Annotations_Part of PASCAL-Part, with NAME.mat in it; pass it as --parts DIR",
    )
    annotated = file_names(parts)
    counts = {}
    for split in ("train", "val"):
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        names = require_names(read_lines(path, "the root"), path)
        chosen = []
        for name in track(names, len(names)):
            ids = read_parts(parts / f"{name}.mat") if f"{name}.mat" in annotated else None
            if ids is not None:
                output.mask(root / PersonPartConfig.masks / f"{name}.png", ids)
                chosen.append(name)
        if not chosen:
            raise FileNotFoundError(f"{parts} annotates no person of {path}: is it PASCAL-Part?")
        output.lines(root / PersonPartConfig.lists / f"{split}.txt", tuple(chosen))
        counts[split] = len(chosen)
    return counts


# The options of `python -m data prepare NAME`, and what each prints.

Root = tyro.conf.Positional[Path]


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    return track(items, "preparing", total, console=Console(stderr=True), transient=True)


def _say(text: str) -> None:
    Console().print(text, markup=False, soft_wrap=True)


def _say_counts(counts: Mapping[str, int], expected: Mapping[str, int]) -> None:
    for name, count in counts.items():
        known = expected.get(name, count)
        note = "" if count == known else f"; {known} are published: is the data set complete?"
        _say(f"{name}: {count} images{note}")


@dataclass(frozen=True)
class TrainaugOptions:
    """Write the list train_aug of VOC 2012 and SBD, and SegmentationClassAug on request.

    Attributes:
        root: the VOC2012 folder.
        sbd: benchmark_RELEASE/dataset of SBD.
        masks: write SegmentationClassAug too, for programs that read no MATLAB files.
        force: replace files that hold something else.
    """

    root: Root
    sbd: Path
    masks: bool = False
    force: bool = False

    def run(self) -> None:
        """Write and say what was written."""
        output = Output(force=self.force)
        names = trainaug(self.root, self.sbd)
        output.lines(list_path(self.root, "train_aug"), names)
        if self.masks:
            write_trainaug_masks(self.root, self.sbd, names, output, _progress)
        _say_counts({"train_aug": len(names)}, {"train_aug": TRAINAUG})
        _say(str(output))


@dataclass(frozen=True)
class AnimalsOptions:
    """Write the lists of the animal subset of VOC 2012.

    Attributes:
        root: the VOC2012 folder, with VOC's own lists train and val.
        sbd: benchmark_RELEASE/dataset of SBD: report takes what its train.txt does not name.
        held_out: instead of --sbd, a list of what report takes, such as seg11valid.txt.
        force: replace lists that hold something else.
    """

    root: Root
    sbd: Path | None = None
    held_out: Path | None = None
    force: bool = False

    def run(self) -> None:
        """Write and say what was written, and how to use it.

        Raises:
            ValueError: not one of sbd and held_out is given.
        """
        if (self.sbd is None) == (self.held_out is None):
            raise ValueError("give either --sbd .../benchmark_RELEASE/dataset or --held-out FILE")
        rule = outside_sbd(self.sbd) if self.sbd else inside_list(self.held_out or Path())
        lists = animals(self.root, rule, _progress)
        output = Output(force=self.force)
        for name, names in lists.items():
            output.lines(list_path(self.root, name), names)
        _say_counts({name: len(names) for name, names in lists.items()}, ANIMAL_COUNTS)
        _say(
            f"{output}; train with --data.train-list animals_train --data.tune-list animals_tune "
            "--data.report-list animals_report"
        )


@dataclass(frozen=True)
class CityscapesOptions:
    """Write the masks of train ids of Cityscapes.

    Attributes:
        root: the folder of Cityscapes.
        force: replace masks that hold something else.
    """

    root: Root
    force: bool = False

    def run(self) -> None:
        """Write and say what was written."""
        output = Output(force=self.force)
        count = write_train_ids(self.root, output, _progress)
        _say_counts({"train and val": count}, {"train and val": 3475})
        _say(str(output))


@dataclass(frozen=True)
class PersonPartOptions:
    """Write the masks and lists of PASCAL-Person-Part.

    Attributes:
        root: the VOC2010 folder.
        parts: the folder Annotations_Part of PASCAL-Part.
        force: replace files that hold something else.
    """

    root: Root
    parts: Path
    force: bool = False

    def run(self) -> None:
        """Write and say what was written."""
        output = Output(force=self.force)
        counts = write_person_part(self.root, self.parts, output, _progress)
        _say_counts(counts, {"train": 1716, "val": 1817})
        _say(str(output))


@dataclass(frozen=True)
class CocoOptions:
    """Write the lists of COCO's images that show enough of the classes of VOC.

    Attributes:
        root: the folder of COCO.
        min_pixels: the fewest pixels of those classes.
        workers: processes that read masks; chosen by default.
        force: replace lists that hold something else.
    """

    root: Root
    min_pixels: int = 1000
    workers: int | None = None
    force: bool = False

    def run(self) -> None:
        """Write and say what was written, and how to use it."""
        output = Output(force=self.force)
        counts = write_lists(self.root, self.min_pixels, output, _progress, self.workers)
        _say_counts(counts, {})
        _say(f"{output}; train with --data.lists voc_lists")


PREPARATIONS: dict[str, Callable[..., Any]] = {
    "voc-animals": AnimalsOptions,
    "voc-trainaug": TrainaugOptions,
    "cityscapes": CityscapesOptions,
    "person-part": PersonPartOptions,
    "coco": CocoOptions,
}
