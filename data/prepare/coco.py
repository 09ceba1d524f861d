"""Which images of COCO to pre-train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from data.coco import TABLE
from data.labels import to_labels
from data.listing import file_names, require_folders
from data.parallel import map_files
from data.prepare.output import Output
from data.reading import read_ids
from data.sample import VOID

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
    labels = to_labels(read_ids(path), TABLE, path)
    return int(np.count_nonzero((labels > 0) & (labels < VOID)))
