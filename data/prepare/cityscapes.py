"""The masks of train ids that Cityscapes leaves to be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from data.cityscapes import COLOURS, TABLES
from data.labels import to_labels
from data.listing import file_names, require_folders
from data.palette import palette_of
from data.prepare.output import Output
from data.reading import read_ids

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
    palette = palette_of(COLOURS)
    for path in track(masks, len(masks)):
        labels = to_labels(read_ids(path), TABLES["labelIds"], path).astype(np.uint8)
        name = path.name.removesuffix(ENDING) + "_gtFine_labelTrainIds.png"
        output.mask(path.with_name(name), labels, palette)
    return len(masks)
