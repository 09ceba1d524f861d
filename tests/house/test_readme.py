"""The README tells the truth: its examples run."""

from __future__ import annotations

import doctest

from tests.house.source_tree import ROOT


def test_the_example_runs() -> None:
    failures, tried = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert tried >= 10
    assert failures == 0
