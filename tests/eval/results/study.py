"""A study of a comparison's runs, for the tests of stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.__main__ import main
from eval.metrics import Bootstrap, SplitCounts, score_named
from eval.results.document import document
from eval.results.store import Store


def found_study(root: Path) -> Path:
    """A repository with one study that has no runs, and a README without blocks."""
    study = root / "experiments" / "first"
    study.mkdir(parents=True)
    about = {"title": "A first study", "split": "report", "against": ["recipe", "post-hoc"]}
    (study / "study.json").write_text(json.dumps(about))
    (study / "asked.md").write_text("Is it so?\n")
    (study / "says.md").write_text("It may be.\n")
    (root / "README.md").write_text("no blocks\n")
    return root


def change_study(root: Path, **values: Any) -> None:
    """Other values in study.json."""
    path = root / "experiments" / "first" / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def add(run: Path, *words: str, label: str = "recipe") -> None:
    """Store the runs of a folder in the study of the folder that we are in."""
    main(["results", "add", str(run), "--study", "first", "--label", label, *words])


def text_of(root: Path) -> str:
    """What RESULTS.md would be, without drawing the figures anew."""
    return document(Store(root / "experiments"))


def row_of(text: str, arm: str, table: int, label: str = "recipe") -> list[str]:
    """The cells of an arm in the first, second or third table that has it."""
    found = [line for line in text.splitlines() if line.startswith(f"| {label} | {arm} |")]
    return [cell.strip() for cell in found[table].strip("|").split("|")]


def counts_of(fake_run, arm: str, name: str = "counts-report") -> list[SplitCounts]:
    folders = sorted(fake_run.run_dir.glob(f"arms/{arm}-seed*"))
    return [SplitCounts.load(folder / f"{name}.npz") for folder in folders]


def difference_cell(fake_run, arm: str, base: str, *score: str) -> str:
    """How two arms differ, paired by seed and image; start stands against every seed."""
    runs, others = (counts_of(fake_run, a) * (2 if a == "start" else 1) for a in (arm, base))
    found = Bootstrap(len(runs[0])).difference(runs, others, score_named(*score))
    assert found is not None
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * value for value in found))
