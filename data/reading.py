"""Read pairs of image and mask files: pixels, lists of names, labels, many files at once."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from data.dataset import CorruptSample

# Reading the files of one sample; what cannot be used is refused by its name.

Ids = NDArray[np.uint8]
"""(H, W), the ids as a file stores them."""

# What Pillow and SciPy raise at damaged content, beside OSError.
_DAMAGE = (
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    struct.error,
    zlib.error,
    MatReadError,
    Image.DecompressionBombError,
)


@contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turn what a decoder raises into an error that names the file.

    Args:
        path: the file that is read inside.
        what: it should be.

    Raises:
        CorruptSample: its content is damaged.
        OSError: it cannot be opened.
    """
    try:
        yield
    except CorruptSample:
        raise
    except OSError as error:
        # A file that cannot be opened (absent, no permission, a broken disk) is named by the
        # system and is no fault of the sample; a decoder's OSError has no error number.
        if error.errno is not None:
            raise
        raise CorruptSample(_damaged(path, what, error)) from error
    except _DAMAGE as error:
        raise CorruptSample(_damaged(path, what, error)) from error


def _damaged(path: Path, what: str, error: Exception) -> str:
    return f"{path} cannot be decoded as {what} ({error}); replace the file by a whole copy"


def read_image(path: Path) -> NDArray[np.uint8]:
    """A photograph: (H, W, 3) uint8, RGB in 0..255; grey ones get three channels.

    Raises:
        CorruptSample: truncated or not an image; the message names the file.
        OSError: it cannot be opened.
    """
    with naming(path, "an image"), Image.open(path) as picture:
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in pixels, from its header alone.

    Raises:
        CorruptSample: not an image; the message names the file.
        OSError: it cannot be opened.
    """
    with naming(path, "an image"), Image.open(path) as picture:
        return picture.height, picture.width


def read_ids(path: Path) -> Ids:
    """The ids of a mask: an index image, or a MATLAB file of SBD.

    Raises:
        CorruptSample: truncated, not a mask, or a colour image; the message names the file.
        OSError: it cannot be opened.
    """
    return _read_sbd(path) if path.suffix == ".mat" else _read_index_image(path)


def _read_index_image(path: Path) -> Ids:
    with naming(path, "a mask"), Image.open(path) as picture:
        # Converting a palette image to RGB and back loses the ids, so other modes are refused.
        if picture.mode not in ("P", "L"):
            raise CorruptSample(
                f"{path} has mode {picture.mode}; expected an index image (mode P, or L) whose "
                "pixel values are class ids, not colours"
            )
        return np.asarray(picture)


def _read_sbd(path: Path) -> Ids:
    """`GTcls.Segmentation` of Hariharan et al., Semantic Contours from Inverse Detectors, 2011."""
    with naming(path, "a mask of SBD"), path.open("rb") as file:
        content = loadmat(file)
        record = content.get("GTcls")
        if not isinstance(record, np.ndarray) or "Segmentation" not in (record.dtype.names or ()):
            raise CorruptSample(
                f"{path} holds {sorted(k for k in content if not k.startswith('__'))}; expected "
                "GTcls.Segmentation, as the folder cls of SBD does"
            )
        ids: Ids = record["Segmentation"][0, 0]
        if ids.dtype != np.uint8 or ids.ndim != 2:
            raise CorruptSample(
                f"{path}: GTcls.Segmentation is {ids.dtype} of shape {ids.shape}; expected uint8 "
                "(H, W)"
            )
        return ids


# The same function over many files, in several processes.

T = TypeVar("T")
R = TypeVar("R")

_FEW = 200  # so many files are read sooner than processes start


def map_files(function: Callable[[T], R], items: Sequence[T], workers: int | None) -> Iterator[R]:
    """The results in the order of the items.

    Args:
        function: at the top level of a module, or a partial of such a one.
        items: what it is called with.
        workers: processes; 0 works in this one, None chooses.

    Raises:
        OSError: a process died.
    """
    if workers is None:
        workers = 0 if len(items) < _FEW else min(8, os.cpu_count() or 1)
    if workers == 0:
        yield from map(function, items)
        return
    # Spawned: forking a process that has torch's threads can deadlock.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items, chunksize=16)
        except BrokenProcessPool as error:
            raise OSError(
                "a process that read files died, perhaps for want of memory; try --workers 1"
            ) from error


# Folders and lists of a data set: what is there, and what to do where it is not.

_SHOWN = 5  # names in a message; a report lists all


def require_folders(root: Path, below: Sequence[str], layout: str) -> None:
    """Raise unless `root` is a folder that holds the folders `below`.

    Args:
        root: the folder that the user gave.
        below: paths relative to it.
        layout: what is expected and how to pass it, for the message.

    Raises:
        FileNotFoundError: the root or a folder below it is absent.
        PermissionError: it may not be read.
    """
    # `Path.is_dir` raises or denies without permission, depending on the version of Python.
    missing = [name for name in below if not _is_folder(root / name, layout)]
    if not _is_folder(root, layout) or missing:
        found = "lacks " + ", ".join(missing) if _is_folder(root, layout) else "does not exist"
        raise FileNotFoundError(f"the data root {root} {found}. Expected {layout}")


def _is_folder(path: Path, layout: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise _denied(path, layout) from error


def _denied(path: Path, layout: str = "") -> PermissionError:
    hint = f" Expected {layout}" if layout else ""
    return PermissionError(
        f"no permission to read {path}: give this user the right to read it and to enter every "
        f"folder above it (chmod a+rX), or pass another folder.{hint}"
    )


def file_names(folder: Path) -> frozenset[str]:
    """The names in a folder, from one listing; none where there is no such folder.

    Raises:
        PermissionError: it may not be read.
    """
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except PermissionError as error:
        raise _denied(folder) from error


def absent(paths: Iterable[Path]) -> list[Path]:
    """Those of the files that do not exist, in order: one listing a folder, not one call a file.

    Raises:
        PermissionError: a folder may not be read.
    """
    listings: dict[Path, frozenset[str]] = {}
    missing = []
    for path in paths:
        folder = path.parent
        if folder not in listings:
            listings[folder] = file_names(folder)
        if path.name not in listings[folder]:
            missing.append(path)
    return missing


def read_lines(path: Path, option: str) -> tuple[str, ...]:
    """The lines of a list that are not blank, stripped.

    Args:
        path: the list; the others of its folder are named where it is absent.
        option: what chooses the list, for the message.

    Raises:
        FileNotFoundError: there is no such list.
        PermissionError: it may not be read.
        ValueError: it is empty or no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        present = ", ".join(sorted(Path(n).stem for n in file_names(path.parent) if _is_list(n)))
        raise FileNotFoundError(
            f"there is no list {path}; lists there: {present or 'none'}; see {option}"
        ) from error
    except PermissionError as error:
        raise _denied(path) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the list {path} is no text ({error}); expected one name a line") from (
            error
        )
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise ValueError(f"the list {path} is empty; expected one image name a line")
    return lines


def _is_list(name: str) -> bool:
    return name.endswith(".txt")


def require_unique(names: Sequence[str], where: str) -> None:
    """Raise ValueError where a name occurs more than once.

    Args:
        names: of the samples of a split.
        where: what names them, for the message.
    """
    if len(set(names)) == len(names):
        return
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    raise ValueError(f"{where} names an image twice: {shortened(twice)}")


def shortened(items: Sequence[object]) -> str:
    """The first few of many, and how many more there are."""
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    rest = len(items) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def require_names(lines: Sequence[str], path: Path) -> tuple[str, ...]:
    """The lines of the list `path`, each a single name without a folder.

    Raises:
        ValueError: a line is something else.
    """
    wrong = [line for line in lines if len(line.split()) > 1 or "/" in line]
    if wrong:
        raise ValueError(f"{path}: expected one name a line, got {shortened(wrong)}")
    return tuple(lines)


def by_stem(folder: Path, endings: Sequence[str]) -> dict[str, str]:
    """The files of a folder by their name without its ending, sorted.

    Args:
        folder: none of its files are read.
        endings: in lower case, with the dot; where several files have a stem, the last one counts.
    """
    files = [name for name in file_names(folder) if Path(name).suffix.lower() in endings]
    files.sort(key=lambda name: (Path(name).stem, endings.index(Path(name).suffix.lower())))
    return {Path(name).stem: name for name in files}
