from __future__ import annotations

import os
import signal

import pytest

from data.parallel import map_files


def die(item):
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_results_keep_their_order():
    assert list(map_files(str, range(5), None)) == ["0", "1", "2", "3", "4"]
    assert list(map_files(str, range(40), 2)) == [str(k) for k in range(40)]


def test_a_process_that_dies_ends_in_a_message():
    with pytest.raises(OSError, match=r"a process that read files died.*--workers 1"):
        list(map_files(die, range(5), 1))
