"""A study of a comparison's runs, for the tests of stored results."""

from __future__ import annotations

import json
from pathlib import Path

from eval.metrics import SplitCounts


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


def row_of(text: str, arm: str, table: int) -> list[str]:
    """The cells of an arm in the first or second table."""
    found = [line for line in text.splitlines() if line.startswith(f"| recipe | {arm} |")]
    return [cell.strip() for cell in found[table].strip("|").split("|")]


def counts_of(fake_run, arm: str, name: str = "counts-report") -> list[SplitCounts]:
    seeds = (0,) if arm == "start" else (0, 1)
    folder = fake_run.run_dir / "arms"
    return [SplitCounts.load(folder / f"{arm}-seed{seed}" / f"{name}.npz") for seed in seeds]
