"""Writing tiny copies of public data sets, to be read and damaged by tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from data.palette import voc_palette

NOBODY = 65534


def write_image(path: Path, height: int, width: int) -> None:
    """A photograph of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)).save(path)


def write_mask(path: Path, ids: np.ndarray) -> None:
    """An index image in the colours of VOC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # convert("P") of a grey image keeps its values as indices.
    picture = Image.fromarray(ids.astype(np.uint8)).convert("P")
    picture.putpalette(voc_palette().tobytes())
    picture.save(path)


def write_sbd(path: Path, ids: np.ndarray) -> None:
    """A mask as the folder cls of SBD holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": {"Segmentation": ids.astype(np.uint8), "CategoriesPresent": [1]}})


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def truncate(path: Path, keep: float = 0.5) -> None:
    """Cut a file off, as an interrupted copy does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
