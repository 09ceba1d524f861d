"""`python -m data show collage --out sheet.png` and `python -m data verify voc --data.root ...`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro
from rich.console import Console
from rich.table import Table

from data import CollageConfig, DataConfig, Split, VocConfig, build
from data.sheet import contact_sheet
from data.verify import take_census

C = TypeVar("C", CollageConfig, VocConfig)


@dataclass(frozen=True)
class ShowOptions(Generic[C]):
    """What to draw: each sample beside its labels."""

    data: C
    out: Path
    """The picture to write; the ending chooses the format."""
    split: Split = "train"
    count: int = 24
    """How many samples, from the first."""
    columns: int = 4
    """How many in a row."""
    cell: int = 194
    """Pixels that the longer side of an image takes."""


@dataclass(frozen=True)
class VerifyOptions(Generic[C]):
    """What to read."""

    data: C
    split: Split = "train"


@dataclass(frozen=True)
class Show:
    """Draw a contact sheet."""

    options: Annotated[
        Annotated[ShowOptions[CollageConfig], tyro.conf.subcommand("collage", prefix_name=False)]
        | Annotated[ShowOptions[VocConfig], tyro.conf.subcommand("voc", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]


@dataclass(frozen=True)
class Verify:
    """Read and check every sample of a split, and count the pixels of every class."""

    options: Annotated[
        Annotated[VerifyOptions[CollageConfig], tyro.conf.subcommand("collage", prefix_name=False)]
        | Annotated[VerifyOptions[VocConfig], tyro.conf.subcommand("voc", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]


Command = (
    Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)


def show(config: DataConfig, split: Split, out: Path, count: int, columns: int, cell: int) -> None:
    """Write the contact sheet of a split to `out`."""
    dataset = build(config, split)
    sheet = contact_sheet(dataset, count=count, columns=columns, cell=cell)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    Console().print(f"wrote {out}: {min(count, len(dataset))} of {dataset}", markup=False)


def verify(config: DataConfig, split: Split) -> None:
    """Print what a split holds."""
    dataset = build(config, split)
    census = take_census(dataset)
    table = Table("id", "class", "pixels", "images", title=split)
    for label, name in enumerate(dataset.classes):
        share = f"{100 * census.shares[label]:.2f} %"
        table.add_row(str(label), name, share, str(census.images[label]))
    Console().print(table)
    Console().print(
        f"{census.samples} images, sides {census.smallest}..{census.largest} px, "
        f"{100 * census.void:.2f} % void; every file is well formed"
    )


def main(args: list[str] | None = None) -> int:
    """Run one command; bad data ends with a message and status 2 instead of a traceback."""
    command = tyro.cli(Command, args=args, prog="python -m data")
    try:
        if isinstance(command, Show):
            o = command.options
            show(o.data, o.split, o.out, count=o.count, columns=o.columns, cell=o.cell)
        else:
            verify(command.options.data, command.options.split)
    except (FileNotFoundError, ValueError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
