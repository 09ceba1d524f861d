"""Images of many sizes through a network that wants one size a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from models import Segmenter

T = TypeVar("T")

WAITING = 8  # batches' worth of items that may wait for others of their size


def batches_by_size(
    items: Iterable[T], size_of: Callable[[T], tuple[int, ...]], batch_size: int
) -> Iterator[list[tuple[int, T]]]:
    """Put items of one size together, while they arrive.

    A batch leaves as soon as it is full. At most `WAITING` batches' worth of items wait: then the
    fullest incomplete batch leaves, and at the end all others.

    Args:
        items: in any order of sizes; read one by one.
        size_of: what has to be equal in a batch, for example
            `lambda sample: segmenter.padded_size(sample.image.shape[1:])`.
        batch_size: the largest.

    Yields:
        Pairs of an item and its place in `items`, which recovers the order: every item once.

    Raises:
        ValueError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}.")
    waiting: dict[tuple[int, ...], list[tuple[int, T]]] = {}
    for place, item in enumerate(items):
        size = size_of(item)
        batch = waiting.setdefault(size, [])
        batch.append((place, item))
        if len(batch) < batch_size:
            if sum(map(len, waiting.values())) < WAITING * batch_size:
                continue
            size = max(waiting, key=lambda s: len(waiting[s]))
        yield waiting.pop(size)
    yield from waiting.values()


def coarse_together(segmenter: Segmenter, images: Sequence[Tensor]) -> list[Tensor]:
    """`Segmenter.coarse_unary` of every image, from one pass for those that pad to one size.

    What differs from one pass an image is rounding: a convolution may sum in another order where
    the batch has another size. The padding is the same, so nothing else does.

    Args:
        segmenter: in eval mode, so that the images of a batch do not see each other.
        images: (B, 3, H, W) each, RGB in 0..255, on its device.

    Returns:
        (B, L, h, w) logits at the network's stride, for each image.
    """
    padded = [segmenter.padded(image.float()) for image in images]
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(padded):
        alike.setdefault(tuple(image.shape[2:]), []).append(place)
    found: dict[int, Tensor] = {}
    for places in alike.values():
        logits = segmenter.network(torch.cat([padded[place] for place in places]))
        parts = logits.split([len(padded[place]) for place in places])
        found.update(zip(places, parts, strict=True))
    return [found[place] for place in range(len(images))]


def unaries_together(segmenter: Segmenter, images: Sequence[Tensor]) -> list[Tensor]:
    """`Segmenter.unary` of every image likewise: (B, L, H, W) each, at its own size."""
    coarse = coarse_together(segmenter, images)
    return [
        segmenter.enlarge(logits, image.shape[2:])
        for logits, image in zip(coarse, images, strict=True)
    ]
