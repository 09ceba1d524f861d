"""Write files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[BinaryIO]:
    """Open a file that takes its name when it is complete: a reader sees the old one or the new.

    The new file is on the disk before it takes the old one's name, so neither a kill nor a full
    disk nor a power cut costs what was there before.

    Args:
        path: of the file; its folder is made.
        shared: another machine may write the same file at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    number = f".{uuid4().hex}" if shared else ""
    temporary = path.with_name(f"{path.name}{number}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk, as fsync does with a file's contents."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
