"""Several processes, each with a share of the images, one thread each.

An image belongs to one process, which keeps it prepared. Every image is measured alone, on one
thread, so no result depends on how many processes there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

import torch

from eval.tuning.bench import Answer, Bench, Problem

Task = Callable[..., Answer]  # a method of Bench that takes an image's position first

AHEAD = 2  # rounds handed out before the first is awaited: nobody waits for the slowest


class Here(Executor):
    """Does in this process what it is asked, at once, on one thread."""

    def __init__(self, problem: Problem) -> None:
        self._threads = torch.get_num_threads()
        self._problem = problem
        self._bench: Bench | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of fn(bench, ...)."""
        torch.set_num_threads(1)
        try:
            if self._bench is None:
                self._bench = Bench(self._problem)
            future: Future[Any] = Future()
            future.set_result(fn(self._bench, *args, **kwargs))
        finally:
            torch.set_num_threads(self._threads)
        return future


class There(Executor):
    """Does it in a process of its own, one task after another."""

    def __init__(self, problem: Problem) -> None:
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_start, initargs=(problem,)
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of fn(bench, ...) there."""
        return self._pool.submit(_work, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


class Crew:
    """Processes that share some images.

    Args:
        problem: what they measure.
        indices: positions of the images in the split.
        workers: how many processes; 1 works in this one.
    """

    def __init__(self, problem: Problem, indices: Sequence[int], workers: int) -> None:
        self.indices = list(indices)
        count = min(workers, len(self.indices))
        self._members: list[Executor] = (
            [Here(problem)] if count == 1 else [There(problem) for _ in range(count)]
        )
        position = {index: k for k, index in enumerate(self.indices)}
        self._of = {index: self._members[k % count] for index, k in position.items()}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for member in self._members:
            member.shutdown(cancel_futures=True)

    def rounds(
        self,
        task: Task,
        arguments: Iterable[tuple[Any, ...]],
        indices: Sequence[int] | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> Iterator[list[Answer]]:
        """The answers of the images, in their order, for each entry of `arguments` in turn.

        Args:
            task: a method of `Bench`.
            arguments: what it takes after the image's position.
            indices: of the images; all if not given.
            done: called when an image is finished.

        Raises:
            ChildProcessError: a process died.
        """
        chosen = self.indices if indices is None else indices
        waiting: deque[list[Future[Answer]]] = deque()
        for given in arguments:
            waiting.append([self._of[i].submit(task, i, *given) for i in chosen])
            if len(waiting) == AHEAD:
                yield self._collected(waiting.popleft(), done)
        while waiting:
            yield self._collected(waiting.popleft(), done)

    @staticmethod
    def _collected(futures: Sequence[Future[Answer]], done: Callable[[], None]) -> list[Answer]:
        answers = []
        for future in futures:
            try:
                answers.append(future.result())
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    "a process that measured images died, perhaps for want of memory: --resume "
                    "goes on with what is there, fewer --workers take less memory."
                ) from error
            done()
        return answers


_bench: Bench | None = None  # of a process of `There`


def _start(problem: Problem) -> None:
    """Make this process a worker: one thread, and an end when its parent ends."""
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    _bench = Bench(problem)


def _leave_with(parent: Any) -> None:
    """A worker whose parent was killed would wait for tasks forever."""
    parent.join()
    os._exit(1)


def _work(task: Task, *arguments: Any) -> Answer:
    assert _bench is not None
    return task(_bench, *arguments)
