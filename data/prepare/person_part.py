"""PASCAL-Person-Part from the part annotations of VOC 2010."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from data.listing import file_names, read_lines, require_folders, require_names
from data.person_part import CLASSES, LISTS, MASKS
from data.prepare.output import Output
from data.reading import Ids, naming
from data.sample import CorruptSample

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
_CLASS_OF = {part: CLASSES.index(name) for name, parts in PARTS.items() for part in parts}


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
                output.mask(root / MASKS / f"{name}.png", ids)
                chosen.append(name)
        if not chosen:
            raise FileNotFoundError(f"{parts} annotates no person of {path}: is it PASCAL-Part?")
        output.lines(root / LISTS / f"{split}.txt", tuple(chosen))
        counts[split] = len(chosen)
    return counts
