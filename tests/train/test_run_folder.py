"""Who did work in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.run_folder import RunFolder, read_json, write_json

CONFIG = {"fit": 1, "seeds": [0, 1]}


def folder_of(path: Path, *, resume: bool = True, **changes: Any) -> RunFolder:
    return RunFolder(path, {**CONFIG, **changes}, resume=resume)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """As if a run had finished, and its checkpoint were deleted since."""
    folder_of(tmp_path, resume=False)
    write_json(tmp_path / "arms" / "unary-seed0" / "result.json", {})
    return tmp_path


def test_invocations_at_the_same_time_keep_each_others_lines(tmp_path: Path) -> None:
    one, other = folder_of(tmp_path), folder_of(tmp_path)
    for folder in (one, other, one):
        folder.sign()
    signed = read_json(tmp_path / "origin.json")
    assert len(signed) == len({entry["id"] for entry in signed}) == 2
    assert one.provenance()["wall_seconds"] == sum(entry["seconds"] for entry in signed)


def test_a_run_that_left_nothing_leaves_no_line_and_claims_no_folder(tmp_path: Path) -> None:
    for _ in range(2):
        folder_of(tmp_path).sign()
    assert len(read_json(tmp_path / "origin.json")) == 1
    (tmp_path / "arms" / "start-seed0").mkdir(parents=True)
    (tmp_path / "arms" / "start-seed0" / "checkpoint.pt").touch()
    folder_of(tmp_path).sign()
    assert len(read_json(tmp_path / "origin.json")) == 2
    for fit in (1, 2):
        folder_of(tmp_path / "unused", resume=False, fit=fit)
    assert read_json(tmp_path / "unused" / "config.json")["fit"] == 2


def test_results_without_checkpoints_are_protected(finished: Path) -> None:
    with pytest.raises(FileExistsError, match="holds a run already"):
        folder_of(finished, resume=False)
    with pytest.raises(ValueError, match="another configuration: fit was 1, now 2"):
        folder_of(finished, fit=2)
    folder_of(finished, seeds=[0, 1, 2])
    with pytest.raises(ValueError, match=r"begin at the start of seed 0.*got \[1, 2\]"):
        folder_of(finished, seeds=[1, 2])
