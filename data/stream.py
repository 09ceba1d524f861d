"""Feed training with batches: a function of the seed and the step alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from data.dataset import CorruptSample, Sample, SegmentationDataset
from data.transforms import Augment

_ORDER, _AUGMENT, _REPLACE = 0, 1, 2
_TRIES = 100  # images drawn in the place of unreadable ones before the data set is given up


@dataclass(frozen=True)
class Batch:
    """Samples of equal size, stacked.

    Attributes:
        images: (B, 3, H, W) uint8, RGB in 0..255.
        masks: (B, H, W) int64, 255 = void.
        names: B names.
        corrupt: what was wrong with every image that one of these stands in for, by its name.
    """

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]
    corrupt: dict[str, str] = field(default_factory=dict)


class TrainStream:
    """An endless sequence of augmented batches.

    The samples form one long row: a permutation of the data set for every epoch, one after the
    other, each derived from (seed, epoch). Step s takes the places s * B .. (s + 1) * B - 1 of that
    row, so a batch may span two epochs and no sample is dropped. The augmentation at a place is
    derived from (seed, place). So a run resumes at any step without a saved state, two runs with
    the same seed see the same batches, and the number of workers changes nothing. Of P processes
    with batches of B, number r takes the r-th B of the P * B places of a step: together they see
    what one process with batches of P * B sees.

    An unreadable image is replaced by another one, drawn from (seed, place), and is named in
    `Batch.corrupt`.

    Args:
        dataset: the training split.
        augment: the change every sample goes through.
        batch_size: B.
        seed: 0..2**32 - 1.
        rank: r, of this process.
        num_processes: P.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        augment: Augment,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be 0..2**32 - 1, got {seed}")
        if not 0 <= rank < num_processes:
            raise ValueError(f"rank must be 0..num_processes - 1, got {rank} of {num_processes}")
        self.dataset = dataset
        self.augment = augment
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.num_processes = num_processes
        self._order: tuple[int, list[int]] = (-1, [])  # the latest epoch and its permutation

    def batch(self, step: int) -> Batch:
        """Make the batch of a step, counted from 0.

        Raises:
            ValueError: step is negative, or the samples differ in size.
            CorruptSample: a hundred images in a row are unreadable.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        first = (step * self.num_processes + self.rank) * self.batch_size
        corrupt: dict[str, str] = {}
        samples = [self._sample(first + k, corrupt) for k in range(self.batch_size)]
        return _stack(samples, corrupt)

    def iterate(self, start_step: int, num_steps: int, num_workers: int) -> Iterator[Batch]:
        """Make the batches of steps start_step .. start_step + num_steps - 1, in order.

        So many worker processes prepare batches ahead; without any, each is made when asked for.
        """
        if num_workers == 0:
            for step in range(start_step, start_step + num_steps):
                yield self.batch(step)
            return
        # Workers are spawned: forking a process that has threads (torch's, a progress bar's) can
        # deadlock. The generator keeps the loader from drawing from torch's global one.
        loader = DataLoader(
            _Steps(self, start_step, num_steps),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_unchanged,
            multiprocessing_context="spawn",
            worker_init_fn=_ignore_interrupts,
            generator=Generator().manual_seed(self.seed),
        )
        # The loader has SIGCHLD raise an error wherever the program is, which may be between two
        # weights of an optimiser step. A dead worker is noticed without it, by who waits for it.
        before = signal.getsignal(signal.SIGCHLD)
        batches = iter(loader)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        yield from batches

    def _sample(self, place: int, corrupt: dict[str, str]) -> Sample:
        index = self._index(place)
        replacements = self._random(_REPLACE, place)
        for _ in range(_TRIES):
            try:
                sample = self.dataset[index]
            except CorruptSample as error:
                corrupt[self.dataset.names[index]] = str(error)
                index = int(replacements.randint(len(self.dataset)))
                continue
            draw = int(self._random(_AUGMENT, place).randint(2**31, dtype=np.int64))
            return self.augment(sample, Generator().manual_seed(draw))
        name, problem = list(corrupt.items())[-1]
        raise CorruptSample(
            f"{_TRIES} images drawn from {self.dataset} are unreadable; the last, {name}: {problem}"
        )

    def _index(self, place: int) -> int:
        epoch, index = divmod(place, len(self.dataset))
        if self._order[0] != epoch:
            order = self._random(_ORDER, epoch).permutation(len(self.dataset))
            self._order = (epoch, order.tolist())
        return self._order[1][index]

    def _random(self, purpose: int, number: int) -> RandomState:
        # RandomState's streams are frozen, and it takes words of 32 bits.
        return RandomState([self.seed, purpose, number >> 32, number & 0xFFFFFFFF])

    def __repr__(self) -> str:
        return (
            f"TrainStream(batch_size={self.batch_size}, seed={self.seed}, "
            f"{self.dataset}, {self.augment})"
        )


class _Steps(Dataset[Batch]):
    """A stretch of a stream, as the loader wants it; at module level, so it can be pickled."""

    def __init__(self, stream: TrainStream, start_step: int, num_steps: int) -> None:
        self.stream = stream
        self.start_step = start_step
        self.num_steps = num_steps

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, index: int) -> Batch:
        return self.stream.batch(self.start_step + index)


def _unchanged(batch: Any) -> Any:
    # Typed as the loader types it: what arrives is a Batch, because batch_size is None.
    return batch


def _ignore_interrupts(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal: who asked for batches decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stack(samples: list[Sample], corrupt: dict[str, str]) -> Batch:
    sizes = {tuple(sample.image.shape[-2:]) for sample in samples}
    if len(sizes) > 1:
        listed = ", ".join(
            f"{sample.name} {sample.image.shape[-2]} x {sample.image.shape[-1]}"
            for sample in samples
        )
        raise ValueError(
            f"images of different sizes (H x W) cannot share a batch: {listed}. Set crop_size, "
            "or use batch_size 1 (--augment.crop-size N; --start.batch-size 1 and so on)."
        )
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        masks=torch.stack([sample.mask for sample in samples]),
        names=tuple(sample.name for sample in samples),
        corrupt=corrupt,
    )
