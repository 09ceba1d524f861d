"""Read files of images, masks and lists; what cannot be used is refused by its name."""

from __future__ import annotations

import codecs
import os
import re
import stat
import struct
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from data.dataset import CorruptSample

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

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
    """Name the file and what it should be in whatever a decoder raises inside.

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
    """Read a photograph as a viewer shows it: (H, W, 3) uint8, RGB in 0..255.

    It is turned as its EXIF data say. Grey gets three channels, CMYK is converted, what is
    transparent shows white.

    Raises:
        CorruptSample: truncated, not an image, or of more than 8 bits a channel; names the file.
        OSError: it cannot be opened.
    """
    with naming(path, "an image"), Image.open(path) as picture:
        if picture.mode.startswith(("I", "F")):
            raise CorruptSample(
                f"{path} has more than 8 bits a channel (mode {picture.mode}): convert it to 8 "
                "bits first, because which grey is white is not known"
            )
        picture.load()
        turned = ImageOps.exif_transpose(picture) if orientation(picture) > 1 else picture
        if turned.has_transparency_data:
            white = Image.new("RGBA", turned.size, "white")
            turned = Image.alpha_composite(white, turned.convert("RGBA"))
        return np.asarray(turned if turned.mode == "RGB" else turned.convert("RGB"))


def orientation(picture: Image.Image) -> int:
    """Tell how a picture must be turned still: 1 (not at all) to 8, as EXIF numbers it."""
    # Pillow turns a TIFF itself; it would decode a whole PNG to look behind the pixels.
    if picture.format == "TIFF" or (picture.format == "PNG" and "exif" not in picture.info):
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, *_DAMAGE):
        return 1  # the tags are damaged; the pixels may be whole
    return value if value in range(1, 9) else 1


def image_header(path: Path) -> tuple[int, int, int]:
    """Read height, width (in pixels, turned) and EXIF orientation from an image's header alone.

    Raises:
        CorruptSample: not an image; the message names the file.
        OSError: it cannot be opened.
    """
    with naming(path, "an image"), Image.open(path) as picture:
        turn, (width, height) = orientation(picture), picture.size
        return (width, height, turn) if turn > 4 else (height, width, turn)


def read_ids(path: Path) -> Ids:
    """Read the ids of a mask: an index image, or a MATLAB file of SBD.

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


def read_palette(path: Path) -> NDArray[np.uint8] | None:
    """Read the colours of an index image, (n, 3) RGB; None where it has none, or is no image."""
    with suppress(OSError, *_DAMAGE), Image.open(path) as picture:
        if picture.mode == "P":
            return np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return None


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
    """Call a function with every item, and yield the results in the order of the items.

    Args:
        function: at the top level of a module, or a partial of such a one.
        items: its arguments.
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
    """List the names in a folder that do not begin with a dot; none where there is no folder.

    Raises:
        PermissionError: it may not be read.
    """
    try:
        return frozenset(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except PermissionError as error:
        raise _denied(folder) from error


def absent(paths: Iterable[Path]) -> dict[Path, str]:
    """Find the files that do not exist, in order: one listing a folder, not one call a file.

    Returns:
        Of each absent file its path in words, with a file that differs in ending or case alone.

    Raises:
        PermissionError: a folder may not be read.
    """
    listings: dict[Path, frozenset[str]] = {}
    missing = {}
    for path in paths:
        if path.parent not in listings:
            listings[path.parent] = file_names(path.parent)
        if path.name not in listings[path.parent]:
            missing[path] = str(path)
    for path in list(missing)[:_SHOWN]:
        stem = path.stem.casefold()
        near = (n for n in sorted(listings[path.parent]) if Path(n).stem.casefold() == stem)
        missing[path] += "".join(f" (there is {name})" for name in list(near)[:1])
    return missing


def read_text(path: Path) -> str:
    """Read a text in UTF-8 or UTF-16, with or without a byte order mark, or else in Latin-1.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise
        return content.decode("latin-1")


def read_lines(path: Path, option: str) -> tuple[str, ...]:
    """Read the lines of a list that are not blank, stripped, with composed accents.

    Args:
        path: the list; the others of its folder are named where it is absent.
        option: what chooses the list, for the message.

    Raises:
        FileNotFoundError: there is no such list.
        PermissionError: it may not be read.
        ValueError: it is empty or no text.
    """
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        lists = sorted(Path(n).stem for n in file_names(path.parent) if n.endswith(".txt"))
        raise FileNotFoundError(
            f"there is no list {path}; lists there: {', '.join(lists) or 'none'}; see {option}"
        ) from error
    except PermissionError as error:
        raise _denied(path) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the list {path} is no text ({error}); expected one name a line"
        ) from error
    lines = tuple(composed(line.strip()) for line in text.splitlines() if line.strip())
    if not lines:
        raise ValueError(f"the list {path} is empty; expected one image name a line")
    return lines


def composed(name: str) -> str:
    """Write accents as Windows and Linux do: macOS stores a letter and its accent apart."""
    return unicodedata.normalize("NFC", name)


def name_in(line: str, stems: Container[str]) -> str | None:
    """Return the name of an image that a line of a list means; None where it is not one name.

    Args:
        line: NAME, which may have spaces where there is such a file, or NAME with its ending.
        stems: of the files that are there.
    """
    if line in stems:
        return line
    stem, ending = os.path.splitext(line)
    if ending.lower() in IMAGE_ENDINGS:
        line = stem
    single = "/" not in line and len(line.split()) == 1
    return line if single or line in stems else None


def names_in(lines: Sequence[str], path: Path, stems: Container[str] = ()) -> tuple[str, ...]:
    """Return the names of images that the lines of the list `path` mean, see `name_in`.

    Raises:
        ValueError: a line is something else.
    """
    names = [name_in(line, stems) for line in lines]
    wrong = [line for line, name in zip(lines, names, strict=True) if name is None]
    if wrong:
        raise ValueError(f"{path}: expected one name a line, got {shortened(wrong)}")
    return tuple(name for name in names if name is not None)


def two_paths(line: str) -> tuple[PurePosixPath, PurePosixPath] | None:
    """Return the two paths, of an image and its mask, that a line of a list means."""
    match = re.fullmatch(r"(.*/.*\.\w+);?\s+(.*/.*\.\w+);?", line)
    return (PurePosixPath(match[1]), PurePosixPath(match[2])) if match else None


def by_stem(folder: Path, endings: Sequence[str] = IMAGE_ENDINGS) -> dict[str, str]:
    """List the files of a folder by their name without its ending, sorted.

    Args:
        folder: none of its files are read.
        endings: in lower case, with the dot; where several files have a stem, the first one counts.
    """
    files = [name for name in file_names(folder) if Path(name).suffix.lower() in endings]
    files.sort(key=lambda name: (Path(name).stem, -endings.index(Path(name).suffix.lower())))
    return {composed(Path(name).stem): name for name in files}


def require_unique(names: Sequence[str], where: str) -> None:
    """Raise ValueError where a name that `where` (a list or folder) lists occurs twice."""
    if len(set(names)) == len(names):
        return
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    raise ValueError(f"{where} names an image twice: {shortened(twice)}")


def shortened(items: Iterable[object]) -> str:
    """Name the first few of many, and how many more there are."""
    items = list(items)
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    rest = len(items) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
