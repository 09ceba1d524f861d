"""Every number of RESULTS.md follows from what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.results.command import Places, problems

ROOT = Path(__file__).parents[3]


def test_every_published_number_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert list(problems(Places())) == []
