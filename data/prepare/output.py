"""Writing derived files: whole or not at all, and never over something else."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.palette import voc_palette
from data.reading import Ids, read_ids
from data.sample import CorruptSample


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
