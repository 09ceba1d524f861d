"""Offline W&B files as tests read them."""

from __future__ import annotations

import time
from pathlib import Path

from train.offline_run import OfflineRun, offline_runs


def finished_runs(folder: Path) -> list[OfflineRun]:
    """The offline runs, once W&B's own process has written their last record.

    It answers `finish` before that, and takes a few milliseconds more.
    """
    deadline = time.monotonic() + 20
    while True:
        found = offline_runs(folder)
        if all(run.finished for run in found):
            return found
        assert time.monotonic() < deadline, "a run was not finished within 20 s"
        time.sleep(0.02)
