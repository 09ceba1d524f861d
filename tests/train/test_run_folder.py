"""Who did work in a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.run_folder import RunFolder, as_whole, read_json, write_json


def folder_of(path: Path) -> RunFolder:
    return RunFolder(path, {"fit": 1, "seeds": [0, 1]}, resume=True)


def keep_result(path: Path) -> None:
    """As if a run had finished, and its checkpoint were deleted since."""
    RunFolder(path, {"fit": 1, "seeds": [0, 1]}, resume=False)
    write_json(path / "arms" / "unary-seed0" / "result.json", {})


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


def test_a_run_that_saved_nothing_claims_no_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path, {"fit": 1, "seeds": [0]}, resume=False)
    RunFolder(tmp_path, {"fit": 2, "seeds": [1]}, resume=False)
    assert read_json(tmp_path / "config.json")["fit"] == 2


def test_results_without_checkpoints_are_protected(tmp_path: Path) -> None:
    keep_result(tmp_path)
    with pytest.raises(FileExistsError, match="holds a run already"):
        RunFolder(tmp_path, {"fit": 1, "seeds": [0, 1]}, resume=False)
    with pytest.raises(ValueError, match="another configuration: fit was 1, now 2"):
        RunFolder(tmp_path, {"fit": 2, "seeds": [0, 1]}, resume=True)


def test_the_start_of_another_seed_is_refused(tmp_path: Path) -> None:
    keep_result(tmp_path)
    RunFolder(tmp_path, {"fit": 1, "seeds": [0, 1, 2]}, resume=True)
    with pytest.raises(ValueError, match=r"begin at the start of seed 0.*got \[1, 2\]"):
        RunFolder(tmp_path, {"fit": 1, "seeds": [1, 2]}, resume=True)


def test_arms_made_one_by_one_are_told_as_the_comparison_they_make() -> None:
    run = "python -m train run collage --resume --seeds 1 2 --out 'my run'"
    arms = [f"{run} --arm start", f"{run} --arm joint --seed 2", f"{run} --arm joint --seed 1"]
    assert as_whole(arms) == ["python -m train compare collage --seeds 1 2 --out 'my run'"]
    other = f"{run} --arm joint --seed 1 --fit.lr 1"
    assert as_whole([*arms, other, other]) == [*arms, other]
