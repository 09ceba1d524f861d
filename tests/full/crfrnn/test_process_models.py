"""The same bits from every kind of process and from threads that call at once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.conftest import REPOSITORY
from tests.crfrnn.test_processes import CALLS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool_that_is_not_forked(method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        for call in CALLS:
            for answer in pool.map_async(call, range(3)).get(timeout=120):
                np.testing.assert_array_equal(answer, call(0))


@pytest.mark.timeout(300)
def test_threads_that_call_at_once(threads: Callable[[int], None]) -> None:
    threads(2)
    expected = [call(0) for call in CALLS]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            answers = pool.map(lambda call: call(0), CALLS)
            for answer, alone in zip(answers, expected, strict=True):
                np.testing.assert_array_equal(answer, alone)


def call_it(call: Callable[[], object]) -> object:
    return call()


@pytest.mark.timeout(300)
def test_the_workers_of_a_data_loader(threads: Callable[[int], None]) -> None:
    threads(2)
    expected = [call() for call in CALLS]
    torch.randn(1 << 22).exp()
    loader: Any = DataLoader  # of anything with a length; the worker calls
    answers = loader(CALLS, num_workers=2, batch_size=None, collate_fn=call_it, timeout=60)
    for answer, alone in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer, alone)


IMPORTED_IN_THE_CHILD = """
import multiprocessing, numpy as np, torch

def call(_):
    import crfrnn
    p = np.full((2, 90, 80), 0.5, np.float32)
    return crfrnn.refine(p, np.zeros((90, 80, 3), np.uint8)).shape

torch.set_num_threads(2)
torch.randn(1 << 22).exp()
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(call, range(2)).get(timeout=30) == [(2, 90, 80)] * 2
"""


@pytest.mark.timeout(120)
def test_a_forked_child_that_imports_the_library_itself() -> None:
    command = [sys.executable, "-W", "ignore", "-c", IMPORTED_IN_THE_CHILD]
    subprocess.run(command, cwd=REPOSITORY, check=True)
