"""The trained tiny comparison, and what its arms counted."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import data
from data import SegmentationDataset
from eval.metrics import SplitCounts
from tests.train.world import tiny_recipe


@dataclass
class FinishedRun:
    """A run folder, its results.json and its report split; not to be modified."""

    run_dir: Path
    results: dict[str, Any]
    split: SegmentationDataset

    def counts(self, arm: str, name: str = "counts-report") -> list[SplitCounts]:
        """The counts of an arm, seed by seed."""
        folders = sorted(self.run_dir.glob(f"arms/{arm}-seed*"))
        return [SplitCounts.load(folder / f"{name}.npz") for folder in folders]


@pytest.fixture(scope="session")
def finished_run(trained_run: Path) -> FinishedRun:
    results = json.loads((trained_run / "results.json").read_text())
    return FinishedRun(trained_run, results, data.build(tiny_recipe().data, "report"))


@pytest.fixture
def run_copy(trained_run: Path, tmp_path: Path) -> Path:
    """The run folder again, to be damaged."""
    return Path(shutil.copytree(trained_run, tmp_path / "demo"))
