"""`python -m eval results`: store runs, write RESULTS.md and its pages, check every number."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from eval.results.document import documents
from eval.results.figures import write_figures, write_gallery
from eval.results.study import read, read_study, runs_of, studies


@dataclass(frozen=True)
class Places:
    """The files that are written and checked, relative to here.

    Attributes:
        experiments: the folder of all studies.
        document: RESULTS.md.
        pages: the folder of the studies' pages and figures.
    """

    experiments: Path = Path("experiments")
    document: Path = Path("RESULTS.md")
    pages: Path = Path("docs/results")


PlacesOption = Annotated[Places, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class AddOptions:
    """Store the runs of run folders in a study.

    Attributes:
        runs: folders that `python -m train compare` or `run` wrote, or the folder of an ablation's
            table, beside whose name lie the run folders of its labels.
        study: name of a folder of `experiments` that holds study.json.
        label: of the row that the runs belong to; of an ablation, that of each run.
        arms: to take; all if none is named.
        places: where everything lies.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    study: str
    label: str = ""
    arms: tuple[str, ...] = ()
    places: PlacesOption = field(default_factory=Places)


@dataclass(frozen=True)
class GalleryOptions:
    """Draw what the arms of a run folder predict on the report split, label maps alone.

    Attributes:
        run: folder that `python -m train compare` wrote.
        study: name of a folder of `experiments` that holds study.json.
        count: images: those that one arm gains and loses most on against another, and some between.
        places: where everything lies.
    """

    run: tyro.conf.Positional[Path]
    study: str
    count: int = 6
    places: PlacesOption = field(default_factory=Places)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count must be at least 1 image, got {self.count}.")


@dataclass(frozen=True)
class PlacesOptions:
    """Say where everything lies.

    Attributes:
        places: relative to here.
    """

    places: PlacesOption = field(default_factory=Places)


def add(options: AddOptions) -> None:
    """Store the runs; a run of the same label, arm and seed is replaced.

    Raises:
        ValueError: a path has no finished run of these arms.
    """
    study = read_study(options.places.experiments / options.study)
    for path in options.runs:
        runs = [
            run
            for label, folder in labelled(path, options.label)
            for run in runs_of(folder, label, study.split, options.arms)
        ]
        if not runs:
            raise ValueError(
                f"{path} has no finished run of {', '.join(options.arms) or 'any arm'}."
            )
        study = study.with_runs(runs)
        for run in runs:
            print(f"{study.name}: {run.label}, {run.name}")
    study.save()


def labelled(path: Path, label: str) -> list[tuple[str, Path]]:
    """Return the run folders of a path with their labels.

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


def add_command(arguments: list[str]) -> None:
    """Parse and store."""
    add(tyro.cli(AddOptions, prog="python -m eval results add", args=arguments))


def gallery_command(arguments: list[str]) -> None:
    """Draw the gallery of a study."""
    options = tyro.cli(GalleryOptions, prog="python -m eval results gallery", args=arguments)
    study = read_study(options.places.experiments / options.study)
    path = options.places.pages / f"{study.name}-gallery.png"
    write_gallery(options.run, path, options.count)
    print(f"wrote {path}")


def write_command(arguments: list[str]) -> None:
    """Draw the figures, and write RESULTS.md and the pages."""
    places = tyro.cli(PlacesOptions, prog="python -m eval results write", args=arguments).places
    stored = studies(places.experiments)
    for path in (path for study in stored for path in write_figures(study, places.pages)):
        print(f"wrote {path}")
    files = documents(stored, places.experiments, places.document, places.pages)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")


def check_command(arguments: list[str]) -> None:
    """Recompute every number.

    Raises:
        SystemExit: with status 1, after all that is wrong was printed.
    """
    options = tyro.cli(PlacesOptions, prog="python -m eval results check", args=arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    found = list(problems(options.places))
    for problem in found:
        console.print(problem)
    if found:
        raise SystemExit(1)
    console.print("every number follows from what is stored")


def problems(places: Places) -> Iterator[str]:
    """Say a sentence for everything that is not what its sources give."""
    try:
        stored = studies(places.experiments)
        files = documents(stored, places.experiments, places.document, places.pages)
    except (ValueError, FileNotFoundError) as error:
        yield f"{places.document} cannot be written: {error}"
        return
    for path, expected in files.items():
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
        if written != expected:
            lines = differing_lines(written, expected)
            yield f"{path} is not what {places.experiments} gives; write it again:\n{lines}"
    for path in sorted({*places.pages.glob("*.md")} - {*files}):
        yield f"{path} belongs to no study: delete it."


def differing_lines(written: str, expected: str) -> str:
    """Return the lines that differ, as a diff without its heads."""
    lines = difflib.unified_diff(
        written.splitlines(), expected.splitlines(), "written", "expected", lineterm="", n=0
    )
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))
