"""Turn the annotations of a data set, as published, into masks and lists of images.

Each function of `PREPARATIONS` is a command, `python -m data prepare NAME ROOT`. It says what it
wrote. A file that holds what would be written stays; one that holds anything else is an error,
unless `force` replaces it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.io import loadmat

from data import coco
from data.cityscapes import TABLES, CityscapesConfig
from data.dataset import VOID, CorruptSample, voc_palette
from data.paired import to_labels
from data.reading import (
    Ids,
    by_stem,
    file_names,
    image_header,
    map_files,
    names_in,
    naming,
    read_ids,
    read_lines,
    read_text,
    require_folders,
)
from data.voc import ANIMALS, CLASSES, TABLE, list_path
from data.voc2010 import PART_CLASSES, PersonPartConfig

T = TypeVar("T")
Root = tyro.conf.Positional[Path]

VOC_LAYOUT = "the VOC2012 folder, with SegmentationClass and ImageSets/Segmentation below it"
SBD_LAYOUT = (
    "the folder of SBD with cls, train.txt and val.txt directly below it; pass it as --sbd "
    ".../benchmark_RELEASE/dataset"
)


def voc_trainaug(root: Root, sbd: Path, *, masks: bool = False, force: bool = False) -> None:
    """Write the list train_aug of VOC 2012 and SBD, and SegmentationClassAug on request.

    The list names the images of VOC's train and of SBD (Hariharan et al., ICCV 2011) that are not
    in VOC's val, sorted: 10,582.

    Args:
        root: the VOC2012 folder.
        sbd: benchmark_RELEASE/dataset of SBD.
        masks: write SegmentationClassAug too, for programs that read no MATLAB files: the mask of
            VOC where there is one, else that of SBD.
        force: replace files that hold something else.
    """
    require_folders(root, ("SegmentationClass", "ImageSets/Segmentation"), VOC_LAYOUT)
    require_folders(sbd, ("cls",), SBD_LAYOUT)
    official = {name: _names(list_path(root, name)) for name in ("train", "val")}
    extra = {*_names(sbd / "train.txt"), *_names(sbd / "val.txt")}
    names = tuple(sorted(({*official["train"]} | extra) - {*official["val"]}))
    output = Output(force=force)
    output.lines(list_path(root, "train_aug"), names)
    if masks:
        labelled = file_names(root / "SegmentationClass")
        for name in _progress(names):
            path = root / "SegmentationClass" / f"{name}.png"
            if path.name not in labelled:
                path = sbd / "cls" / f"{name}.mat"
            ids = read_ids(path)
            to_labels(ids, TABLE, path)
            output.mask(root / "SegmentationClassAug" / f"{name}.png", ids)
    _say_counts({"train_aug": len(names)}, {"train_aug": 10582})
    _say(str(output))


def voc_animals(
    root: Root, sbd: Path | None = None, held_out: Path | None = None, *, force: bool = False
) -> None:
    """Write the lists of the animal subset of VOC 2012: a cat, cow, dog, horse or sheep in each.

    Its train is that of VOC. Of VOC's val, report takes the images that are held out and tune the
    others, so that a network that was trained with SBD has seen no image of report.

    Args:
        root: the VOC2012 folder, with VOC's own lists train and val.
        sbd: benchmark_RELEASE/dataset of SBD: report takes what its train.txt does not name.
        held_out: instead of --sbd, a list of what report takes, such as seg11valid.txt.
        force: replace lists that hold something else.

    Raises:
        ValueError: not one of sbd and held_out is given.
    """
    require_folders(root, ("SegmentationClass", "ImageSets/Segmentation"), VOC_LAYOUT)
    train, val = (_names(list_path(root, name)) for name in ("train", "val"))
    if sbd is not None and held_out is None:
        require_folders(sbd, (), SBD_LAYOUT)
        report = {*val} - {*_names(sbd / "train.txt")}
    elif held_out is not None and sbd is None:
        report = {*_names(held_out)}
    else:
        raise ValueError("give either --sbd .../benchmark_RELEASE/dataset or --held-out FILE")
    shows = map_files(partial(_shows_an_animal, root / "SegmentationClass"), (*train, *val), None)
    chosen = {name for name in _progress((*train, *val)) if next(shows)}
    lists = {
        "animals_train": tuple(name for name in train if name in chosen),
        "animals_tune": tuple(name for name in val if name in chosen - report),
        "animals_report": tuple(name for name in val if name in chosen & report),
    }
    output = Output(force=force)
    for name, names in lists.items():
        output.lines(list_path(root, name), names)
    published = {"animals_train": 439, "animals_tune": 217, "animals_report": 228}
    _say_counts({name: len(names) for name, names in lists.items()}, published)
    _say(
        f"{output}; train with --data.train-list animals_train --data.tune-list animals_tune "
        "--data.report-list animals_report"
    )


def _shows_an_animal(folder: Path, name: str) -> bool:
    path = folder / f"{name}.png"
    labels = to_labels(read_ids(path), TABLE, path)
    wanted = [CLASSES.index(animal) for animal in ANIMALS if animal not in ("background", "person")]
    return bool(np.isin(labels, wanted).any())


def voc_clicks(root: Root, clicks: Path, *, radius: int = 3, force: bool = False) -> None:
    """Write SegmentationClassClicks: masks that are void but in a disc around each click.

    Bearman et al., What's the Point, ECCV 2016, train with such masks.

    Args:
        root: the VOC2012 folder, with JPEGImages.
        clicks: a JSON file, {"NAME": [[x, y, class id], ...]}, x pixels from the left edge of the
            image and y from the upper one.
        radius: of each disc, pixels; 0 labels one pixel.
        force: replace masks that hold something else.

    Raises:
        ValueError: the file of clicks is malformed, or radius is negative.
    """
    require_folders(root, ("JPEGImages",), "the VOC2012 folder, with JPEGImages below it")
    if radius < 0:
        raise ValueError(f"--radius must be at least 0 pixels, got {radius}")
    images, output = by_stem(root / "JPEGImages"), Output(force=force)
    by_name = read_clicks(clicks, num_classes=len(CLASSES))
    names = [name for name in by_name if name in images]
    if not names:
        raise FileNotFoundError(f"{root / 'JPEGImages'} has no image that {clicks} names")
    for name in _progress(names):
        height, width, _ = image_header(root / "JPEGImages" / images[name])
        ids = click_mask((height, width), by_name[name], radius)
        output.mask(root / "SegmentationClassClicks" / f"{name}.png", ids)
    _say_counts({"clicks": len(names)}, {"clicks": len(by_name)})
    _say(f"{output}; train with --data.kind voc-clicks")


Click = tuple[float, float, int]
"""x and y in pixels, and a class id."""


def read_clicks(path: Path, num_classes: int) -> dict[str, list[Click]]:
    """Read and check a file of clicks, see `voc_clicks`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is malformed, or names a class that does not exist.
    """
    expected = 'expected {"NAME": [[x, y, class id], ...]}'
    try:
        values = json.loads(read_text(path))
        clicks = {
            str(name): [(float(x), float(y), int(label)) for x, y, label in places]
            for name, places in values.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds no clicks ({error}); {expected}") from error
    wrong = {label for places in clicks.values() for *_, label in places} - {*range(num_classes)}
    if wrong:
        raise ValueError(f"{path}: class ids must be 0..{num_classes - 1}, got {sorted(wrong)}")
    return clicks


def click_mask(size: tuple[int, int], clicks: Sequence[Click], radius: int) -> Ids:
    """Label discs around clicks in a mask of void; where discs overlap, the nearest click counts.

    Args:
        size: (H, W).
        clicks: those outside count as at the border.
        radius: of a disc, pixels.

    Returns:
        (H, W) uint8.
    """
    ids = np.full(size, VOID, dtype=np.uint8)
    nearest = np.full(size, radius * radius + 1)
    rows, columns = np.ogrid[: size[0], : size[1]]
    for x, y, label in clicks:
        row, column = min(max(round(y), 0), size[0] - 1), min(max(round(x), 0), size[1] - 1)
        squared = (rows - row) ** 2 + (columns - column) ** 2
        closer = squared < nearest
        ids[closer], nearest[closer] = label, squared[closer]
    return ids


def cityscapes(root: Root, *, force: bool = False) -> None:
    """Write the masks of train ids: NAME_gtFine_labelTrainIds.png beside NAME_gtFine_labelIds.png.

    Args:
        root: the folder of Cityscapes.
        force: replace masks that hold something else.
    """
    ending = "_gtFine_labelIds.png"
    require_folders(root, ("gtFine",), "the folder of Cityscapes, with gtFine directly below it")
    masks = [
        root / "gtFine" / split / city / name
        for split in ("train", "val")  # the labels of test are not published
        for city in sorted(file_names(root / "gtFine" / split))
        for name in sorted(file_names(root / "gtFine" / split / city))
        if name.endswith(ending)
    ]
    if not masks:
        raise FileNotFoundError(
            f"no mask {root / 'gtFine'}/{{train,val}}/CITY/*{ending}: unpack gtFine there"
        )
    output, palette = Output(force=force), CityscapesConfig().label_set().palette
    for path in _progress(masks):
        labels = to_labels(read_ids(path), TABLES["labelIds"], path).astype(np.uint8)
        name = path.name.removesuffix(ending) + "_gtFine_labelTrainIds.png"
        output.mask(path.with_name(name), labels, palette)
    _say_counts({"train and val": len(masks)}, {"train and val": 3475})
    _say(str(output))


def coco_lists(
    root: Root, *, min_pixels: int = 1000, workers: int | None = None, force: bool = False
) -> None:
    """Write voc_lists/FOLDER.txt: the images of COCO with enough pixels of the classes of VOC.

    Chen et al., Rethinking Atrous Convolution (2017), section 4.4, keeps the images with more than
    1000 annotated pixels of those classes.

    Args:
        root: the folder of COCO.
        min_pixels: the fewest pixels of all classes of VOC but the background together.
        workers: processes that read masks; chosen by default.
        force: replace lists that hold something else.
    """
    if min_pixels < 0:
        raise ValueError(f"--min-pixels must be at least 0, got {min_pixels}")
    require_folders(
        root,
        tuple(f"stuffthingmaps/{folder}" for folder in coco.PUBLISHED),
        "the folder of COCO, with stuffthingmaps/{train2017,val2017} below it",
    )
    output, counts = Output(force=force), {}
    for folder in coco.PUBLISHED:
        masks = root / "stuffthingmaps" / folder
        names = sorted(n[:-4] for n in file_names(masks) if n.endswith(".png"))
        sizes = map_files(partial(_voc_pixels, masks), names, workers)
        chosen = tuple(name for name in _progress(names) if next(sizes) >= min_pixels)
        if not chosen:
            raise FileNotFoundError(
                f"none of the {len(names)} masks in {masks} has {min_pixels} pixels of the "
                "classes of VOC"
            )
        output.lines(root / "voc_lists" / f"{folder}.txt", chosen)
        counts[folder] = len(chosen)
    _say_counts(counts, {})
    _say(f"{output}; train with --data.lists voc_lists")


def _voc_pixels(folder: Path, name: str) -> int:
    path = folder / f"{name}.png"
    labels = to_labels(read_ids(path), coco.TABLE, path)
    return int(np.count_nonzero((labels > 0) & (labels < VOID)))


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


def person_part(root: Root, parts: Path, *, force: bool = False) -> None:
    """Write masks and lists of PASCAL-Person-Part: images of VOC 2010 with a person in parts.

    Args:
        root: the VOC2010 folder, with ImageSets/Main/{train,val}.txt, which decide the split.
        parts: the folder Annotations_Part of PASCAL-Part.
        force: replace files that hold something else.
    """
    require_folders(root, ("ImageSets/Main",), "the VOC2010 folder, with ImageSets/Main below it")
    require_folders(
        parts,
        (),
        "the folder Annotations_Part of PASCAL-Part, with NAME.mat in it; pass it as --parts DIR",
    )
    annotated = file_names(parts)
    output, counts = Output(force=force), {}
    for split in PersonPartConfig.published:
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        chosen = []
        for name in _progress(_names(path)):
            ids = read_parts(parts / f"{name}.mat") if f"{name}.mat" in annotated else None
            if ids is not None:
                output.mask(root / PersonPartConfig.masks / f"{name}.png", ids)
                chosen.append(name)
        if not chosen:
            raise FileNotFoundError(f"{parts} annotates no person of {path}: is it PASCAL-Part?")
        output.lines(root / PersonPartConfig.lists / f"{split}.txt", chosen)
        counts[split] = len(chosen)
    _say_counts(counts, PersonPartConfig.published)
    _say(str(output))


def read_parts(path: Path) -> Ids | None:
    """Read the mask of Annotations_Part/NAME.mat; None where it shows no person in parts.

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


PREPARATIONS: dict[str, Callable[..., None]] = {
    "voc-animals": voc_animals,
    "voc-trainaug": voc_trainaug,
    "voc-clicks": voc_clicks,
    "cityscapes": cityscapes,
    "person-part": person_part,
    "coco": coco_lists,
}


# Reading lists, writing files, and saying so.


class Output:
    """Write files that may be there already, from an earlier call.

    Args:
        force: replace files of other content.
    """

    def __init__(self, *, force: bool) -> None:
        self.force = force
        self.written = 0
        self.kept = 0

    def lines(self, path: Path, lines: Sequence[str]) -> None:
        """Write a list."""
        content = "".join(f"{line}\n" for line in lines).encode()
        self._write(path, content, same=path.is_file() and path.read_bytes() == content)

    def mask(self, path: Path, ids: Ids, palette: NDArray[np.uint8] | None = None) -> None:
        """Write (H, W) uint8 ids as an index image, in the colours of VOC by default."""
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
        part.write_bytes(content)
        part.replace(path)
        self.written += 1

    def __str__(self) -> str:
        return f"{self.written} files written, {self.kept} were there"


def _holds(path: Path, ids: Ids) -> bool:
    try:
        return np.array_equal(read_ids(path), ids)
    except CorruptSample:
        return False


def _names(path: Path) -> tuple[str, ...]:
    return names_in(read_lines(path, "the folder that was given"), path)


def _progress(items: Sequence[T]) -> Iterator[T]:
    console = Console(stderr=True)
    yield from track(items, "preparing", len(items), console=console, transient=True)


def _say(text: str) -> None:
    Console().print(text, markup=False, soft_wrap=True)


def _say_counts(counts: Mapping[str, int], expected: Mapping[str, int]) -> None:
    for name, count in counts.items():
        known = expected.get(name, count)
        note = "" if count == known else f"; {known} are published: is the data set complete?"
        _say(f"{name}: {count} images{note}")
