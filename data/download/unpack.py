"""Unpacking archives, never outside the folder that was given."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
)


def unpack(archive: Path, into: Path) -> None:
    """Unpack a .tar, .tar.gz, .tgz or .zip.

    Args:
        archive: the file; a complete one.
        into: where its members go; it is made.

    Raises:
        ValueError: the archive is damaged, is of another kind, or has a member that would be
            written outside of `into`.
        OSError: a file cannot be written.
    """
    into.mkdir(parents=True, exist_ok=True)
    extract = _unzip if zipfile.is_zipfile(archive) else _untar
    try:
        extract(archive, into)
    except _DAMAGE as error:
        raise ValueError(
            f"{archive} is damaged or is no archive ({error}): remove it and run this again"
        ) from error


def _untar(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as tar:
        # Python before 3.10.12, and 3.11 before 3.11.4: links are refused altogether there.
        if not hasattr(tarfile, "data_filter"):
            for member in tar:
                if _leaves(member.name) or not (member.isreg() or member.isdir()):
                    raise _outside(archive, into, repr(member.name))
                # Nearly as the filter does: nobody else may write, the owner may read.
                member.mode = 0o755 if member.isdir() else member.mode & 0o755 | 0o600
            tar.extractall(into)
            return
        try:
            tar.extractall(into, filter="data")
        except tarfile.FilterError as error:
            raise _outside(archive, into, str(error)) from error


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            if _leaves(name):
                raise _outside(archive, into, repr(name))
        content.extractall(into)


def _leaves(name: str) -> bool:
    """Whether a member of that name might be written outside of the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in next(iter(path.parts), "")


def _outside(archive: Path, into: Path, what: str) -> ValueError:
    return ValueError(
        f"{archive} has a member that does not belong below {into} ({what}); it is not the "
        "published archive"
    )
