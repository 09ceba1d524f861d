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
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, into)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(into, filter="data")
    except tarfile.FilterError as error:
        raise ValueError(
            f"{archive} has a member that does not belong below {into} ({error}); it is not the "
            "published archive"
        ) from error
    except _DAMAGE as error:
        raise ValueError(
            f"{archive} is damaged or is no archive ({error}): remove it and run this again"
        ) from error


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise ValueError(
                    f"{archive} has a member {name!r} that does not belong below {into}; it is not "
                    "the published archive"
                )
        content.extractall(into)
