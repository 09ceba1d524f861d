"""`python -m eval results`: store runs, write RESULTS.md, check every number."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from eval.results.check import Places, problems
from eval.results.document import document
from eval.results.figures import write_figures
from eval.results.gallery import GALLERY, write_gallery
from eval.results.record import records_of
from eval.results.store import Store, read


@dataclass(frozen=True)
class AddOptions:
    """Store the runs of run folders in a study.

    Attributes:
        runs: folders that `python -m train compare` or `run` wrote, or the folder of an ablation's
            table, beside whose name lie the run folders of its labels.
        study: name of a folder of `experiments` that holds study.json.
        label: of the row that the runs belong to; of an ablation, that of each run.
        arms: to take; all if none is named.
        experiments: the folder of all studies.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    study: str
    label: str = ""
    arms: tuple[str, ...] = ()
    experiments: Path = Path("experiments")


@dataclass(frozen=True)
class GalleryOptions:
    """Draw what the arms of a run folder predict on the report split, label maps alone.

    Attributes:
        run: folder that `python -m train compare` wrote.
        study: name of a folder of `experiments` that holds study.json.
        count: images: those that one arm gains and loses most on against another, and some between.
        experiments: the folder of all studies.
    """

    run: tyro.conf.Positional[Path]
    study: str
    count: int = 6
    experiments: Path = Path("experiments")

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count must be at least 1 image, got {self.count}.")


@dataclass(frozen=True)
class PlacesOptions:
    """Where everything lies.

    Attributes:
        places: relative to here.
    """

    places: Annotated[Places, tyro.conf.arg(name="")] = field(default_factory=Places)


def add(options: AddOptions) -> None:
    """Store the runs; a run of the same label, arm and seed is replaced.

    Raises:
        ValueError: a path has no finished run of these arms.
    """
    store = Store(options.experiments)
    study = store.study(options.study)
    for path in options.runs:
        found = [
            run
            for label, folder in labelled(path, options.label)
            for run in records_of(folder, label, study.split, options.arms)
        ]
        if not found:
            raise ValueError(
                f"{path} has no finished run of {', '.join(options.arms) or 'any arm'}."
            )
        for record, counts in found:
            print(f"wrote {store.put(study.name, record, counts)}")


def labelled(path: Path, label: str) -> list[tuple[str, Path]]:
    """The run folders of a path with their labels.

    Raises:
        FileNotFoundError: it is no folder of a run or of an ablation.
        ValueError: a run without a label.
    """
    if (path / "config.json").is_file():
        if not label:
            raise ValueError(f"{path} is one run: say of which row, --label WORDS.")
        return [(label, path)]
    if not (path / "results.json").is_file():
        raise FileNotFoundError(
            f"{path} holds neither config.json nor results.json: give a run folder, or the folder "
            "of an ablation's table."
        )
    labels = read(path / "results.json")["labels"]
    folders = {name: path.parent / about["digest"] for name, about in labels.items()}
    # What an ablation has not come to yet, or has only begun, has no origin.json.
    return [(n, folder) for n, folder in folders.items() if (folder / "origin.json").is_file()]


def gallery(options: GalleryOptions) -> None:
    """Draw the picture into the study's folder.

    Raises:
        FileNotFoundError: no such study or run folder, or a prediction is missing.
        ValueError: the folder has no two arms of one seed.
    """
    store = Store(options.experiments)
    path = store.root / store.study(options.study).name / GALLERY
    write_gallery(options.run, path, options.count)
    print(f"wrote {path}")


def write(options: PlacesOptions) -> None:
    """Draw the figures and write RESULTS.md."""
    store = Store(options.places.experiments)
    for study in store.studies():
        for path in write_figures(store, study, store.counts):
            print(f"wrote {path}")
    text = document(store)
    options.places.document.write_text(text, encoding="utf-8")
    print(f"wrote {options.places.document}")


def check(options: PlacesOptions) -> None:
    """Recompute every number.

    Raises:
        SystemExit: with status 1, after all that is wrong was printed.
    """
    console = Console(soft_wrap=True, highlight=False, markup=False)
    found = list(problems(options.places))
    for problem in found:
        console.print(problem)
    if found:
        raise SystemExit(1)
    console.print("every number follows from what is stored")


def add_command(arguments: list[str]) -> None:
    """Parse and store."""
    add(tyro.cli(AddOptions, prog="python -m eval results add", args=arguments))


def gallery_command(arguments: list[str]) -> None:
    """Parse and draw."""
    gallery(tyro.cli(GalleryOptions, prog="python -m eval results gallery", args=arguments))


def write_command(arguments: list[str]) -> None:
    """Parse and write."""
    write(tyro.cli(PlacesOptions, prog="python -m eval results write", args=arguments))


def check_command(arguments: list[str]) -> None:
    """Parse and check."""
    check(tyro.cli(PlacesOptions, prog="python -m eval results check", args=arguments))
