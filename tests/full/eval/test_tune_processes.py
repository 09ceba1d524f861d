"""A tuning by several processes, each of which imports PyTorch."""

from __future__ import annotations

from rich.console import Console

from eval.tune import tune
from tests.eval.plain_networks import journal, options


def test_two_processes_find_what_one_does(tmp_path) -> None:
    one, two = (options(tmp_path / str(k), workers=k) for k in (1, 2))
    for given in (one, two):
        tune(given, Console(quiet=True))
    assert journal(two.out) == journal(one.out)
