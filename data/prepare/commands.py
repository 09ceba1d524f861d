"""The options of `python -m data prepare NAME`, and what each prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import track

from data.prepare.cityscapes import write_train_ids
from data.prepare.coco import write_lists
from data.prepare.output import Output
from data.prepare.person_part import write_person_part
from data.prepare.voc import (
    ANIMAL_COUNTS,
    TRAINAUG,
    animals,
    inside_list,
    outside_sbd,
    trainaug,
    write_trainaug_masks,
)
from data.voc import list_path

Root = tyro.conf.Positional[Path]


def _progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    return track(items, "preparing", total, console=Console(stderr=True), transient=True)


def _say(text: str) -> None:
    Console().print(text, markup=False, soft_wrap=True)


def _say_counts(counts: Mapping[str, int], expected: Mapping[str, int]) -> None:
    for name, count in counts.items():
        known = expected.get(name, count)
        note = "" if count == known else f"; {known} are published: is the data set complete?"
        _say(f"{name}: {count} images{note}")


@dataclass(frozen=True)
class TrainaugOptions:
    """Write the list train_aug of VOC 2012 and SBD, and SegmentationClassAug on request.

    Attributes:
        root: the VOC2012 folder.
        sbd: benchmark_RELEASE/dataset of SBD.
        masks: write SegmentationClassAug too, for programs that read no MATLAB files.
        force: replace files that hold something else.
    """

    root: Root
    sbd: Path
    masks: bool = False
    force: bool = False

    def run(self) -> None:
        """Write and say what was written."""
        output = Output(force=self.force)
        names = trainaug(self.root, self.sbd)
        output.lines(list_path(self.root, "train_aug"), names)
        if self.masks:
            write_trainaug_masks(self.root, self.sbd, names, output, _progress)
        _say_counts({"train_aug": len(names)}, {"train_aug": TRAINAUG})
        _say(str(output))


@dataclass(frozen=True)
class AnimalsOptions:
    """Write the lists of the animal subset of VOC 2012.

    Attributes:
        root: the VOC2012 folder, with VOC's own lists train and val.
        sbd: benchmark_RELEASE/dataset of SBD: report takes what its train.txt does not name.
        held_out: instead of --sbd, a list of what report takes, such as seg11valid.txt.
        force: replace lists that hold something else.
    """

    root: Root
    sbd: Path | None = None
    held_out: Path | None = None
    force: bool = False

    def run(self) -> None:
        """Write and say what was written, and how to use it.

        Raises:
            ValueError: not one of sbd and held_out is given.
        """
        if (self.sbd is None) == (self.held_out is None):
            raise ValueError("give either --sbd .../benchmark_RELEASE/dataset or --held-out FILE")
        rule = outside_sbd(self.sbd) if self.sbd else inside_list(self.held_out or Path())
        lists = animals(self.root, rule, _progress)
        output = Output(force=self.force)
        for name, names in lists.items():
            output.lines(list_path(self.root, name), names)
        _say_counts({name: len(names) for name, names in lists.items()}, ANIMAL_COUNTS)
        _say(
            f"{output}; train with --data.train-list animals_train --data.tune-list animals_tune "
            "--data.report-list animals_report"
        )


@dataclass(frozen=True)
class CityscapesOptions:
    """Write the masks of train ids of Cityscapes.

    Attributes:
        root: the folder of Cityscapes.
        force: replace masks that hold something else.
    """

    root: Root
    force: bool = False

    def run(self) -> None:
        """Write and say what was written."""
        output = Output(force=self.force)
        count = write_train_ids(self.root, output, _progress)
        _say_counts({"train and val": count}, {"train and val": 3475})
        _say(str(output))


@dataclass(frozen=True)
class PersonPartOptions:
    """Write the masks and lists of PASCAL-Person-Part.

    Attributes:
        root: the VOC2010 folder.
        parts: the folder Annotations_Part of PASCAL-Part.
        force: replace files that hold something else.
    """

    root: Root
    parts: Path
    force: bool = False

    def run(self) -> None:
        """Write and say what was written."""
        output = Output(force=self.force)
        counts = write_person_part(self.root, self.parts, output, _progress)
        _say_counts(counts, {"train": 1716, "val": 1817})
        _say(str(output))


@dataclass(frozen=True)
class CocoOptions:
    """Write the lists of COCO's images that show enough of the classes of VOC.

    Attributes:
        root: the folder of COCO.
        min_pixels: the fewest pixels of those classes.
        workers: processes that read masks; chosen by default.
        force: replace lists that hold something else.
    """

    root: Root
    min_pixels: int = 1000
    workers: int | None = None
    force: bool = False

    def run(self) -> None:
        """Write and say what was written, and how to use it."""
        output = Output(force=self.force)
        counts = write_lists(self.root, self.min_pixels, output, _progress, self.workers)
        _say_counts(counts, {})
        _say(f"{output}; train with --data.lists voc_lists")


PREPARATIONS: dict[str, Callable[..., Any]] = {
    "voc-animals": AnimalsOptions,
    "voc-trainaug": TrainaugOptions,
    "cityscapes": CityscapesOptions,
    "person-part": PersonPartOptions,
    "coco": CocoOptions,
}
