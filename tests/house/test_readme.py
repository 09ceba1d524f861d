"""The README tells the truth: its example runs, and its tables come from the stored results."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest

from eval.readme import block_of, check_block

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "results").glob("*.json"))


def test_the_example_runs() -> None:
    failures, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 10
    assert failures == 0


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_tables_are_those_of_the_stored_results(path: Path) -> None:
    check_block(README, path.stem, block_of(json.loads(path.read_text(encoding="utf-8"))))


def test_every_block_has_its_results() -> None:
    named = {
        line.removeprefix("<!-- results:").removesuffix(" -->")
        for line in README.splitlines()
        if line.startswith("<!-- results:")
    }
    assert named == {path.stem for path in RESULTS}
