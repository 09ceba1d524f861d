"""What is stored of experiments, and where: everything that RESULTS.md says can be had from it.

experiments/says.md              what all studies together say, in words
experiments/STUDY/study.json     title, split, what the rows are compared with; see `Study`
experiments/STUDY/asked.md       the question, in words
experiments/STUDY/says.md        what the table says and what it does not, in words
experiments/STUDY/runs/*.json    one finished or failed run each, see `eval.results.record`
experiments/STUDY/*.svg          figures, drawn from the runs
experiments/STUDY/gallery.png    what the arms predict, drawn from a run folder
experiments/counts/DIGEST.npz    what was counted on every image, named by its content
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.metrics import SplitCounts
from runtime.run_folder import ARMS

Record = Mapping[str, Any]
Base = tuple[str, str | None]  # label, and arm

DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Study:
    """One question, the runs that answer it, and the words around their table.

    Attributes:
        name: of its folder.
        title: heading.
        split: that is scored: "tune" while a method is looked for, "report" for what came out.
        against: label and arm that all others are compared with; of a label alone, every arm is
            compared with itself under that label.
        also: others of the kind, each with a table of its own.
        parts: title -> beginning of the names of its images; a table is made for each.
        published: label -> what the literature has found of it.
        learning: label whose CRF parameters are drawn by training step.
        commands: that make its runs again; none where the code of today does not.
        asked, says: Markdown.
        records: of all runs, in the order of their labels, arms and seeds.
    """

    name: str
    title: str
    split: Literal["tune", "report"]
    against: Base
    also: tuple[Base, ...]
    parts: Mapping[str, str]
    published: Mapping[str, str]
    learning: str
    commands: tuple[str, ...]
    asked: str
    says: str
    records: tuple[Record, ...]


class Store:
    """The folder of all studies.

    Args:
        root: `experiments`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def studies(self) -> list[Study]:
        """All of them, by name.

        Raises:
            FileNotFoundError: there is none.
        """
        folders = sorted(path.parent for path in self.root.glob("*/study.json"))
        if not folders:
            raise FileNotFoundError(f"no study in {self.root}: expected {self.root}/*/study.json.")
        return [self.study(folder.name) for folder in folders]

    def study(self, name: str) -> Study:
        """One study with its runs.

        Raises:
            FileNotFoundError: it does not exist.
            ValueError: its files are not what they should be.
        """
        folder = self.root / name
        if not (folder / "study.json").is_file():
            raise FileNotFoundError(
                f"no study {name!r}: write {folder / 'study.json'} with title, split and against, "
                "and asked.md and says.md beside it."
            )
        about = read(folder / "study.json")
        try:
            records = [read(path) for path in sorted((folder / "runs").glob("*.json"))]
            order = list(dict.fromkeys([*about.get("labels", ()), *(r["label"] for r in records)]))
            return Study(
                name,
                about["title"],
                about["split"],
                base_of(about["against"]),
                tuple(map(base_of, about.get("also", ()))),
                about.get("parts", {"": ""}),
                about.get("published", {}),
                about.get("learning", about["against"][0]),
                tuple(about.get("commands", ())),
                (folder / "asked.md").read_text(encoding="utf-8").strip(),
                (folder / "says.md").read_text(encoding="utf-8").strip(),
                tuple(sorted(records, key=lambda r: (order.index(r["label"]), *place(r)))),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{folder / 'study.json'} or a file of runs/ lacks {error}: study.json holds "
                "title, split and against, runs/ what `eval results add` wrote."
            ) from error

    def says(self) -> str:
        """What all studies together say; nothing where no one has written it."""
        path = self.root / "says.md"
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""

    def put(self, study: str, record: Record, counts: Mapping[str, SplitCounts]) -> Path:
        """Write a run and what was counted; a run of the same label, arm and seed is replaced.

        Raises:
            ValueError: the file's name is that of another label.
        """
        path = self.run_path(study, record)
        if path.is_file() and read(path)["label"] != record["label"]:
            raise ValueError(
                f"{path} is of the label {read(path)['label']!r}, which differs from "
                f"{record['label']!r} in signs alone: name it with other words."
            )
        for digest, of_split in counts.items():
            if not self.counts_path(digest).is_file():
                of_split.save(self.counts_path(digest))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    def run_path(self, study: str, record: Record) -> Path:
        """The file of a run."""
        words = "".join(c if c.isalnum() else "-" for c in record["label"].lower())
        label = "-".join(part for part in words.split("-") if part)
        name = f"{label}.{record['arm']}.seed{record['seed']}.json"
        return self.root / study / "runs" / name

    def counts(self, digest: str) -> SplitCounts:
        """What was counted, by the digest of its content.

        Raises:
            FileNotFoundError: it is not stored.
            ValueError: its content is another one.
        """
        path = self.counts_path(digest)
        counts = SplitCounts.load(path)
        found = digest_of_counts(counts)
        if found != digest:
            raise ValueError(f"{path} is not what was scored: its content has the digest {found}.")
        return counts

    def counts_path(self, digest: str) -> Path:
        """Where counts lie."""
        return self.root / "counts" / f"{digest}.npz"


def base_of(entry: Any) -> Base:
    """Label and arm of ["recipe", "post-hoc"]; of ["recipe"] alone the arm is None.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(entry, list) or not 1 <= len(entry) <= 2:
        raise ValueError(
            f'study.json: "against" is ["LABEL", "ARM"] or ["LABEL"], and "also" a list of such; '
            f"got {entry!r}."
        )
    return entry[0], entry[1] if len(entry) == 2 else None


def named(base: Base) -> str:
    """What rows are compared with, in words."""
    label, arm = base
    return f"{'the same arm' if arm is None else arm} of “{label}”"


def place(record: Record) -> tuple[int, int]:
    """Arm and seed as numbers to sort by."""
    return ARMS.index(record["arm"]), record["seed"]


def digest_of_counts(counts: SplitCounts) -> str:
    """Of the content: the same whatever wrote or compressed the file."""
    rings = counts.rings.tocoo()
    order = np.lexsort((rings.coords[1], rings.coords[0]))
    hashed = hashlib.sha256()
    about = (counts.names, counts.classes, counts.scored, counts.widths, counts.band)
    hashed.update(json.dumps(about).encode())
    for values in (
        rings.coords[0][order].astype("<i8"),
        rings.coords[1][order].astype("<i8"),
        rings.data[order].astype("<i8"),
        counts.boundary.astype("<i8"),
        counts.contours.astype("<i8"),
        counts.likelihood.astype("<f8"),
        counts.bins.astype("<f8"),
    ):
        hashed.update(json.dumps(values.shape).encode())
        hashed.update(np.ascontiguousarray(values).tobytes())
    return hashed.hexdigest()[:DIGEST_LENGTH]


def read(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: it is damaged; names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
