"""One step of every phase of the recipes of the papers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.test_recipes import MOVED, PAPERS, parts_moved_by_a_step
from train.recipes import RECIPES

PHASES = [
    (name, phase)
    for name in PAPERS
    for phase in ("start", "fit", "crf_fit")
    if getattr(RECIPES[name](), phase) is not None
]


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_step_moves_what_the_phase_learns(name: str, phase: str, tmp_path: Path) -> None:
    assert parts_moved_by_a_step(name, phase, tmp_path) == MOVED[phase]
