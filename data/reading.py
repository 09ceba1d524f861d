"""Reading the files of one sample; what cannot be used is refused by its name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from data.sample import CorruptSample

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
