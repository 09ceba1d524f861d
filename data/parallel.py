"""The same function over many files, in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_FEW = 200  # so many files are read sooner than processes start


def map_files(function: Callable[[T], R], items: Sequence[T], workers: int | None) -> Iterator[R]:
    """The results in the order of the items.

    Args:
        function: at the top level of a module, or a partial of such a one.
        items: what it is called with.
        workers: processes; 0 works in this one, None chooses.

    Raises:
        OSError: a process died.
    """
    if workers is None:
        workers = 0 if len(items) < _FEW else min(8, os.cpu_count() or 1)
    if workers == 0:
        yield from map(function, items)
        return
    # Spawned: forking a process that has torch's threads can deadlock.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items, chunksize=16)
        except BrokenProcessPool as error:
            raise OSError(
                "a process that read files died, perhaps for want of memory; try --workers 1"
            ) from error
