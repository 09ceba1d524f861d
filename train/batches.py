"""The batches of a run on its device, and what was corrupt among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from data import Batch, CorruptSample


class WorkerDied(RuntimeError):
    """A process that loads data is gone, and its batch with it."""


class Batches(Iterator[Batch]):
    """Hands out batches, and counts what could not be read.

    Args:
        source: the batches, on the CPU.
        device: where they go.
        max_corrupt: unreadable images before the run stops.
        corrupt: those that are known already, by name, with what is wrong; grows.
        announce: says one line.
    """

    def __init__(
        self,
        source: Iterator[Batch],
        device: torch.device,
        max_corrupt: int,
        corrupt: dict[str, str],
        announce: Callable[[str], None],
    ) -> None:
        self.source = source
        self.device = device
        self.max_corrupt = max_corrupt
        self.corrupt = corrupt
        self.announce = announce

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            WorkerDied: the process that was to bring it has ended.
            CorruptSample: more images are unreadable than the run may skip.
        """
        try:
            batch = next(self.source)
        except (RuntimeError, EOFError, OSError) as error:
            if not is_of_a_dead_worker(error):
                raise
            raise WorkerDied(
                f"a process that loads data died ({first_line(error)}). The system may "
                "have ended it for its memory: try fewer --workers."
            ) from error
        images = batch.images.to(self.device, non_blocking=True)
        masks = batch.masks.to(self.device, non_blocking=True)
        self._note(batch.corrupt)
        return replace(batch, images=images, masks=masks)

    def _note(self, corrupt: dict[str, str]) -> None:
        for name, problem in corrupt.items():
            if name in self.corrupt:
                continue
            self.corrupt[name] = problem
            self.announce(f"skipped {name}: {problem}")
        if len(self.corrupt) > self.max_corrupt:
            listed = "; ".join(f"{name}: {problem}" for name, problem in self.corrupt.items())
            raise CorruptSample(
                f"{len(self.corrupt)} images are unreadable, --max-corrupt allows "
                f"{self.max_corrupt}. Mend them, take them off the list, or allow more: {listed}"
            )


def first_line(error: Exception) -> str:
    """What an error says, or at least of which kind it is."""
    return (str(error) or type(error).__name__).splitlines()[0]


def is_of_a_dead_worker(error: Exception) -> bool:
    """Whether the loader noticed, or failed to fetch memory that its worker had shared."""
    if "DataLoader worker (pid" in str(error):
        return True
    # What a worker itself raises says in its message where it was caught.
    raised_inside = str(error).startswith("Caught ")
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not raised_inside
