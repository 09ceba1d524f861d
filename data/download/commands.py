"""The options of `python -m data download NAME`, and what it prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from data.download.archives import SOURCES, WITHOUT_ADDRESS, Archive
from data.download.fetch import fetch
from data.download.unpack import unpack


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
