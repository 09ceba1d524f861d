"""Anyone's photographs, as the models see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.dataset import CorruptSample
from data.folder import IMAGE_ENDINGS
from data.reading import naming
from eval.overlay import Picture


def photographs(paths: Sequence[Path]) -> list[Path]:
    """The files among the paths, and the images in the folders, not in folders below these.

    Raises:
        FileNotFoundError: a path does not exist, or there is no image.
        ValueError: two files share a stem, so what is written about one would replace the other.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_ENDINGS)
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"there is no image or folder at {path}.")
    if not found:
        places = ", ".join(map(str, paths)) or "no path was given"
        raise FileNotFoundError(
            f"no image to read ({places}): pass images, or folders with files that end in "
            f"{', '.join(IMAGE_ENDINGS)}."
        )
    by_stem: dict[str, Path] = {}
    for path in found:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(
                f"{other} and {path} are both called {path.stem!r}, and results are named after "
                "their image: predict them into two folders, or rename one."
            )
    return found


def read_photograph(path: Path) -> Picture:
    """A photograph as a viewer shows it: (H, W, 3) uint8, RGB in 0..255.

    Turned as its EXIF data say, so a result lies over the picture as people see it (a mask drawn
    over the unturned pixels does not). Grey gets three channels; what is transparent shows white.

    Raises:
        CorruptSample: truncated, no image, or of more than 8 bits a channel; names the file.
        OSError: it cannot be opened.
    """
    with naming(path, "an image"), Image.open(path) as file:
        if file.mode.startswith(("I", "F")):
            raise CorruptSample(
                f"{path} has mode {file.mode}, more than 8 bits a channel: convert it to 8 bits "
                "first, because which grey is white is not known."
            )
        picture = ImageOps.exif_transpose(file)
        if picture.has_transparency_data:
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture.convert("RGBA"))
        return np.asarray(picture.convert("RGB"))
