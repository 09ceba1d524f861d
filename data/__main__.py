"""Command line: `python -m data show`, `verify`, `prepare` and `download`, see USAGE."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro
from rich.console import Console

from data.collage import CollageConfig
from data.dataset import Split, choose
from data.download import SOURCES, WITHOUT_ADDRESS, download
from data.kinds import KINDS, DataConfig, build
from data.prepare import PREPARATIONS
from data.verify import contact_sheet, print_report, to_json, verify

C = TypeVar("C", bound=DataConfig)
Root = tyro.conf.Positional[Path | None]

USAGE = f"""usage: python -m data show NAME [ROOT] --out SHEET.png [--split SPLIT] [--count N]
       python -m data verify NAME [ROOT] [--split SPLIT ...] [--out REPORT.json] [--no-images]

       python -m data prepare TASK ROOT [--any.option VALUE]
       python -m data download NAME --root DIR [--no-keep]

names: {", ".join(KINDS)}; download also knows sbd
tasks: {", ".join(PREPARATIONS)}
ROOT is the folder of the data set, and may be given as --data.root ROOT too;
`python -m data verify NAME --help` lists every option with its value, and so do the others."""


@dataclass(frozen=True)
class ShowOptions(Generic[C]):
    """Draw a contact sheet: each sample beside its labels.

    Attributes:
        data: the data set.
        out: the picture to write; the ending chooses the format.
        root: the same as --data.root.
        split: train, tune or report.
        count: how many samples, from the first.
        columns: how many in a row.
        cell: pixels that the longer side of an image takes.
    """

    data: C
    out: Path
    root: Root = None
    split: Split = "train"
    count: int = 24
    columns: int = 4
    cell: int = 194

    def run(self) -> int:
        """Write the contact sheet of a split."""
        dataset = build(with_root(self.data, self.root), self.split)
        sheet = contact_sheet(dataset, self.count, self.columns, self.cell)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(self.out)
        shown = min(self.count, len(dataset))
        what = f"{shown} of {len(dataset)} images of {self.data.kind}, {self.split}"
        Console().print(f"wrote {self.out}: {what}", markup=False, soft_wrap=True)
        return 0


@dataclass(frozen=True)
class VerifyOptions(Generic[C]):
    """Read every file once, and report all that is wrong: status 1 where anything is.

    Attributes:
        data: the data set.
        root: the same as --data.root.
        split: which of train, tune and report.
        images: decode every image as well as every mask; else only its header is read.
        workers: processes that read; 0 reads in this one; chosen by default.
        out: write the report to this JSON file too.
        limit: problems of a split that are printed; the file holds all.
    """

    data: C
    root: Root = None
    split: tuple[Split, ...] = ("train", "tune", "report")
    images: bool = True
    workers: int | None = None
    out: Path | None = None
    limit: int = 50

    def run(self) -> int:
        """Print and write what `verify` finds."""
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"--workers must be at least 0, got {self.workers}")
        config = with_root(self.data, self.root)
        reports = verify(config, self.split, decode=self.images, workers=self.workers)
        print_report(Console(), reports, limit=self.limit)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(to_json(config, reports), indent=1) + "\n"
            self.out.write_text(text, encoding="utf-8")
        return 1 if any(report.problems for report in reports) else 0


def with_root(config: DataConfig, root: Path | None) -> DataConfig:
    """Put the folder that was given as a word of its own into a config.

    Raises:
        ValueError: the data set is made, not read; or two folders were given.
    """
    if root is None:
        return config
    if isinstance(config, CollageConfig):
        raise ValueError(f"{root}: this data set is made, it lies in no folder")
    if config.root not in (type(config)().root, root):
        raise ValueError(f"two folders were given: {root}, and --data.root {config.root}")
    return replace(config, root=root)


@dataclass(frozen=True)
class DownloadOptions:
    """Fetch, check and unpack a data set.

    Attributes:
        root: the folder that archives and data go to.
        keep: keep the archives after they are unpacked.
    """

    root: Path
    keep: bool = True


# The names that a command takes, and what they are called.
COMMANDS: dict[str, tuple[Iterable[str], str]] = {
    "show": (KINDS, "data set"),
    "verify": (KINDS, "data set"),
    "prepare": (PREPARATIONS, "task"),
    "download": ({**SOURCES, **WITHOUT_ADDRESS}, "data set"),
}


def main(arguments: list[str]) -> int:
    """Run one command.

    Returns:
        0; 1 where `verify` found anything wrong; 2 with a message where a word is not understood or
        the data cannot be read at all.
    """
    if not arguments or any(word in ("-h", "--help") for word in arguments[:2]):
        print(USAGE)
        return 0
    try:
        return _run(arguments)
    except (OSError, ValueError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2


def _run(arguments: list[str]) -> int:
    command = choose("command", arguments[0], COMMANDS)
    names, what = COMMANDS[command]
    if len(arguments) < 2 or arguments[1].startswith("-"):
        raise ValueError(f"no {what} given: choose one of {', '.join(names)}.\n{USAGE}")
    name, rest = choose(what, arguments[1], names), arguments[2:]
    prog = f"python -m data {command} {name}"
    if command == "prepare":
        tyro.cli(PREPARATIONS[name], prog=prog, args=rest)
        return 0
    if command == "download":
        where = tyro.cli(DownloadOptions, prog=prog, args=rest)
        download(name, where.root, keep=where.keep)
        return 0
    options: Any = ShowOptions if command == "show" else VerifyOptions
    status: int = tyro.cli(options[KINDS[name]], prog=prog, args=rest).run()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
