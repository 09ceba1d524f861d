"""Who did work in a run folder."""

from __future__ import annotations

from pathlib import Path

from train.run_folder import RunFolder, read_json


def folder_of(path: Path) -> RunFolder:
    return RunFolder(path, {"fit": 1}, resume=True)


def test_invocations_at_the_same_time_keep_each_others_lines(tmp_path: Path) -> None:
    one, other = folder_of(tmp_path), folder_of(tmp_path)
    one.sign()
    other.sign()
    one.sign()
    signed = read_json(tmp_path / "origin.json")
    assert len(signed) == 2
    assert len({entry["id"] for entry in signed}) == 2
    assert one.origin()["wall_seconds"] == sum(entry["seconds"] for entry in signed)


def test_a_run_that_left_nothing_leaves_no_line(tmp_path: Path) -> None:
    folder_of(tmp_path).sign()
    again = folder_of(tmp_path)
    again.sign()
    assert len(read_json(tmp_path / "origin.json")) == 1
    (tmp_path / "arms" / "start-seed0").mkdir(parents=True)
    (tmp_path / "arms" / "start-seed0" / "checkpoint.pt").touch()
    folder_of(tmp_path).sign()
    assert len(read_json(tmp_path / "origin.json")) == 2
