"""Where the numbers go, and which mode "auto" means."""

from __future__ import annotations

import json

import pytest

from train.tracking import Tracker, wandb_mode


def test_json_lines_and_rewind(tmp_path) -> None:
    with Tracker(tmp_path, "disabled", "group", "name", {}) as tracker:
        for step in (1, 2, 3):
            tracker.log(step, {"loss": 1.0 / step})
        tracker.rewind(2)
        tracker.log(3, {"loss": 0.25})
    lines = [json.loads(line) for line in tracker.path.read_text().splitlines()]
    assert [line["loss"] for line in lines] == [1.0, 0.5, 0.25]


def test_a_resumed_arm_is_one_run(tmp_path) -> None:
    ids = []
    for _ in range(2):
        with Tracker(tmp_path, "disabled", "group", "name", {}):
            ids.append((tmp_path / "wandb_id.txt").read_text())
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "offline"), ({"WANDB_API_KEY": "k"}, "online"), ({"WANDB_MODE": "disabled"}, None)],
)
def test_auto(monkeypatch, tmp_path, environment, expected) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode("auto") == expected
    assert wandb_mode("offline") == "offline"
