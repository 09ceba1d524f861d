"""Command line: `python -m data show NAME`, `python -m data verify NAME ROOT`, see USAGE."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

import tyro
from rich.console import Console
from rich.progress import track

from data.collage import CollageConfig
from data.dataset import Split
from data.download import SOURCES, WITHOUT_ADDRESS, download
from data.kinds import KINDS, DataConfig, build
from data.prepare import PREPARATIONS
from data.verify import contact_sheet, print_report, to_json, verify

C = TypeVar("C")
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


def show(options: ShowOptions[DataConfig]) -> int:
    """Write the contact sheet of a split."""
    dataset = build(with_root(options.data, options.root), options.split)
    sheet = contact_sheet(dataset, options.count, options.columns, options.cell)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.out)
    shown = min(options.count, len(dataset))
    Console().print(f"wrote {options.out}: {shown} of {dataset}", markup=False)
    return 0


def check(options: VerifyOptions[DataConfig]) -> int:
    """Print and write what `verify` finds."""
    if options.workers is not None and options.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {options.workers}")
    config = with_root(options.data, options.root)
    reports = verify(
        config, options.split, decode=options.images, workers=options.workers, track=_progress
    )
    print_report(Console(), reports, limit=options.limit)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(to_json(config, reports), indent=1) + "\n"
        options.out.write_text(text, encoding="utf-8")
    return 1 if any(report.problems for report in reports) else 0


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    return track(items, "reading", total, console=Console(stderr=True), transient=True)


def with_root(config: DataConfig, root: Path | None) -> DataConfig:
    """The config with the folder that was given as a word of its own.

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


def chosen(what: str, word: str, known: Iterable[str]) -> str:
    """The word, if it is known.

    Raises:
        ValueError: it is not; the message suggests the nearest.
    """
    names = list(known)
    if word in names:
        return word
    near = get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}."
    raise ValueError(f"unknown {what} {word!r}: {hint}\n{USAGE}")


def _read(command: str, name: str, arguments: list[str]) -> int:
    options: Any = ShowOptions if command == "show" else VerifyOptions
    prog = f"python -m data {command} {name}"
    parsed = tyro.cli(options[KINDS[name]], prog=prog, args=arguments)
    return show(parsed) if command == "show" else check(parsed)


def _prepare(command: str, name: str, arguments: list[str]) -> int:
    tyro.cli(PREPARATIONS[name], prog=f"python -m data {command} {name}", args=arguments).run()
    return 0


def _download(command: str, name: str, arguments: list[str]) -> int:
    def fetch(root: Path, *, keep: bool = True) -> None:
        """Fetch, check and unpack a data set.

        Args:
            root: the folder that archives and data go to.
            keep: keep the archives after they are unpacked.
        """
        download(name, root, keep=keep)

    tyro.cli(fetch, prog=f"python -m data {command} {name}", args=arguments)
    return 0


# The names that a command takes, what they are called, and what runs it.
COMMANDS: dict[str, tuple[Iterable[str], str, Callable[[str, str, list[str]], int]]] = {
    "show": (KINDS, "data set", _read),
    "verify": (KINDS, "data set", _read),
    "prepare": (PREPARATIONS, "task", _prepare),
    "download": ({**SOURCES, **WITHOUT_ADDRESS}, "data set", _download),
}


def main(arguments: list[str]) -> int:
    """Run one command.

    Returns:
        0; 1 where `verify` found anything wrong; 2 with a message where a word is not understood or
        the data cannot be read at all.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        command = chosen("command", arguments[0], COMMANDS)
        names, what, run = COMMANDS[command]
        if len(arguments) < 2 or arguments[1].startswith("-"):
            raise ValueError(f"no {what} given: choose one of {', '.join(names)}.\n{USAGE}")
        return run(command, chosen(what, arguments[1], names), arguments[2:])
    except (OSError, ValueError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
