"""`python -m train sync`: what it lists, what it prints, and what it executes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.offline_files import finished_runs
from train.__main__ import main
from train.offline_run import offline_runs
from train.tracking import RunTracker


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    """A run folder with two offline arms, the second resumed once, and no key."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run: Path = tmp_path / "run"
    for arm, first in (("unary-seed0", 1), ("joint-seed0", 1), ("joint-seed0", 3)):
        with RunTracker(run / "arms" / arm, "offline", "a-group", arm, {}) as tracker:
            for step in (first, first + 1):
                tracker.log(step, {"loss": 1.0})
    finished_runs(run)
    return run


def test_it_lists_what_is_offline_and_the_command_of_each_run(folder, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(subprocess, "run", None)  # nothing is executed
    main(["sync", str(folder)])
    printed = capsys.readouterr().out
    ids = {
        arm: (folder / "arms" / arm / "wandb_id.txt").read_text()
        for arm in ("unary-seed0", "joint-seed0")
    }
    for arm, last in (("unary-seed0", "2"), ("joint-seed0", "4")):
        assert any(
            [*line.split()[:3]] == ["a-group", arm, ids[arm]] and last in line.split()
            for line in printed.splitlines()
        )
    commands = [line for line in printed.splitlines() if line.startswith("wandb sync ")]
    parts = offline_runs(folder / "arms" / "joint-seed0")
    assert len(parts) == 2
    joint = "wandb sync " + " ".join(str(part.path) for part in parts)
    assert sorted(map(len, map(str.split, commands))) == [3, 4]
    assert joint in commands
    assert "run `wandb login` first" in printed


def test_one_arm_may_be_named(folder, capsys) -> None:
    main(["sync", str(folder / "arms" / "unary-seed0")])
    printed = capsys.readouterr().out
    assert printed.count("\nwandb sync ") == 1
    assert "joint" not in printed


def test_it_uploads_on_request_and_says_when_that_fails(folder, capsys, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    ran: list[list[str]] = []

    def execute(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, returncode=len(ran) - 1)

    monkeypatch.setattr(subprocess, "run", execute)
    with pytest.raises(SystemExit, match=r"error: `wandb sync .*` failed with status 1\."):
        main(["sync", str(folder), "--run"])
    assert [command[:4] for command in ran] == [[sys.executable, "-m", "wandb", "sync"]] * 2
    assert "wandb login" not in capsys.readouterr().out


def test_what_was_uploaded_is_not_uploaded_again(folder, capsys) -> None:
    for part in offline_runs(folder):
        (path,) = part.path.glob("*.wandb")
        path.with_name(path.name + ".synced").touch()
    main(["sync", str(folder)])
    printed = capsys.readouterr().out
    assert "has been uploaded" in printed
    assert "wandb sync" not in printed


def test_a_run_without_offline_files(tmp_path, capsys) -> None:
    with RunTracker(tmp_path / "arms" / "joint-seed0", "disabled", "g", "n", {}) as tracker:
        tracker.log(1, {"loss": 1.0})
    main(["sync", str(tmp_path)])
    assert "Nothing was logged offline" in capsys.readouterr().out


def test_a_folder_without_a_run(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"error: no run in .*: expected the folder of `train"):
        main(["sync", str(tmp_path)])
    with pytest.raises(SystemExit, match="error: no run in "):
        main(["sync", str(tmp_path / "absent")])
