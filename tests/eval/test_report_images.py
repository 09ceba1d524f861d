"""The data set of a run is found again, also without checkpoints and in another place."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import data
from data import CollageConfig, FolderConfig
from data.collage import Collage
from eval.report.comparison import Comparison, comparisons
from eval.report.images import find_split
from eval.report.reading import read_run
from tests.eval.conftest import make_run

CONFIG = CollageConfig(size=33, num_train=2, num_tune=2, num_report=2)


def comparison_of(path: Path) -> Comparison:
    return comparisons([read_run(path)])[0]


def set_data(path: Path, config: CollageConfig | FolderConfig) -> None:
    values = json.loads((path / "config.json").read_text())
    text = json.dumps({**values, "data": asdict(config)}, default=str)
    (path / "config.json").write_text(text)


@pytest.fixture
def collage_run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", Collage(CONFIG, "report"), seeds=(0,))
    set_data(tmp_path / "run", CONFIG)
    return tmp_path / "run"


def test_the_classes_decide_where_no_checkpoint_is_left(collage_run: Path) -> None:
    comparison = comparison_of(collage_run)
    split = find_split(comparison, None)
    assert isinstance(split, Collage)
    assert split.names == data.build(CONFIG, "report").names
    assert comparison.lacks == []


def test_data_that_is_not_there_is_said_with_what_to_do(collage_run: Path, tmp_path: Path) -> None:
    set_data(collage_run, FolderConfig(root=tmp_path / "moved"))
    comparison = comparison_of(collage_run)
    assert find_split(comparison, None) is None
    (lack,) = comparison.lacks
    assert lack.what.startswith("no images, so no gallery: ")
    assert "--data.root DIR" in lack.remedy


def test_other_classes_are_no_match(collage_run: Path) -> None:
    results = json.loads((collage_run / "results.json").read_text())
    results["data"]["classes"] = ["a", "b"]
    (collage_run / "results.json").write_text(json.dumps(results))
    comparison = comparison_of(collage_run)
    assert find_split(comparison, None) is None
    assert len(comparison.lacks) == 1
