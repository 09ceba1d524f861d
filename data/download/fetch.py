"""Fetching one large file: resumed where it was cut off, and checked before it gets its name."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

CHUNK = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds without a byte

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and those of the whole file, None where it is unknown."""


def fetch(url: str, target: Path, md5: str | None, progress: Progress) -> str:
    """Bring the file of an address to `target`.

    While it is incomplete it is called TARGET.part, and the next call continues it, if the server
    can (HTTP Range) and says that the file is still the same (If-Range), or the checksum will tell.

    Args:
        url: http or https.
        target: where the complete file goes; its folder is made.
        md5: what it must sum up to, or None.
        progress: told after every chunk.

    Returns:
        The SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        ValueError: the checksum is another; the file is removed if it came from here.
        OSError: no network, an error of the server, a cut connection or a full disk; the message
            says so and what to do. What came is kept.
    """
    if target.is_file():
        return _checked(target, md5, url, remove=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    tag = target.with_name(target.name + ".tag")
    complete = False
    while not complete:
        complete = _receive(url, part, tag, progress, checked=md5 is not None)
    digest = _checked(part, md5, url, remove=True)
    part.replace(target)
    tag.unlink(missing_ok=True)
    return digest


def _receive(url: str, part: Path, tag: Path, progress: Progress, *, checked: bool) -> bool:
    """One request; false where the part is useless and another request must start from nothing."""
    start = part.stat().st_size if part.is_file() else 0
    validator = tag.read_text(encoding="utf-8") if tag.is_file() else ""
    if start and not validator and not checked:
        start = 0  # nothing could tell that the file has changed in between
    headers = {"User-Agent": "crfrnn", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    try:
        with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
            return _append(response, url, part, tag, start, progress)
    except HTTPError as error:
        if error.code == 416:  # the part is as long as the file, or longer
            if _total(error.headers.get("Content-Range")) == start:
                return True
            part.unlink()
            return False
        raise OSError(
            f"{url}: the server answers {error.code} {error.reason}; try again later, or look for "
            "the file's new address and put it beside its name yourself"
        ) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise OSError(
            f"{url} cannot be reached ({reason}): check the network and run this again; it goes on "
            "where it stopped"
        ) from error


def _append(
    response: HTTPResponse, url: str, part: Path, tag: Path, start: int, progress: Progress
) -> bool:
    resumed = response.status == 206
    if resumed and not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
        raise OSError(f"{url}: the server sent another range than asked for; remove {part}")
    done = start if resumed else 0  # a server that ignores Range sends the whole file again
    length = response.headers.get("Content-Length")
    total = done + int(length) if length is not None else None
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - done > free:
        raise OSError(
            errno.ENOSPC,
            f"{part.parent} has {free} bytes free, {url} needs {total - done}: make room, or "
            "choose another --root",
        )
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    tag.write_text("" if validator.startswith("W/") else validator, encoding="utf-8")
    with part.open("ab" if resumed else "wb") as file:
        try:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
        finally:
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done < total:
        raise OSError(
            f"{url} was cut off after {done} of {total} bytes: run this again, it goes on there"
        )
    return True


def _total(content_range: str | None) -> int | None:
    match = re.fullmatch(r"bytes \*/(\d+)", content_range or "")
    return int(match[1]) if match else None


def _checked(path: Path, md5: str | None, url: str, *, remove: bool) -> str:
    sums = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            for sum_ in sums:
                sum_.update(chunk)
    found = sums[0].hexdigest()
    if md5 is not None and found != md5:
        if remove:
            path.unlink()
        kept = "it was removed, run this again" if remove else "remove it and run this again"
        raise ValueError(f"{path} from {url} has the MD5 {found}, expected {md5}: {kept}")
    return sums[1].hexdigest()
