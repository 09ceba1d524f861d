"""Batches of one size lose no image, and change no prediction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from eval.size_batches import WAITING, batches_by_size, coarse_together, unaries_together
from tests.eval.plain_networks import noise, tiny_segmenter

SIZES = [(33, 40), (30, 48), (60, 33), (33, 33), (33, 41), (20, 45), (60, 40), (33, 48)]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_every_item_once_with_its_place_and_only_with_its_size(batch_size: int) -> None:
    items = [(i * 7) % 5 for i in range(40)]
    batches = list(batches_by_size(items, lambda item: (item,), batch_size))
    assert sorted(place for batch in batches for place, _ in batch) == list(range(40))
    assert all(items[place] == item for batch in batches for place, item in batch)
    assert all(len({item for _, item in batch}) == 1 for batch in batches)
    assert all(len(batch) <= batch_size for batch in batches)
    # Only the last of each size may be incomplete: nothing else leaves early here.
    assert sum(len(batch) < batch_size for batch in batches) <= 5


def test_items_are_read_one_by_one_and_few_wait() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            read.append(item)
            yield item

    given = 0
    for batch in batches_by_size(items(), lambda item: (item,), 2):  # all of different sizes
        given += len(batch)
        assert len(read) - given < 2 * WAITING
    assert given == 1000


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch size must be at least 1, got 0"):
        next(batches_by_size([1], lambda item: (item,), 0))


@pytest.mark.parametrize("min_size", [0, 65])
def test_together_gives_what_one_by_one_gives(min_size: int) -> None:
    segmenter = tiny_segmenter(crf=None, min_size=min_size)
    images = [noise(*size) for size in SIZES]
    with torch.no_grad():
        together = unaries_together(segmenter, images)
        coarse = coarse_together(segmenter, images)
        for image, unary, small in zip(images, together, coarse, strict=True):
            # Float32 sums of a few hundred terms in another order, on logits of order 1.
            torch.testing.assert_close(unary, segmenter.unary(image), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(small, segmenter.coarse_unary(image), rtol=1e-4, atol=1e-5)


def test_padded_size_is_that_of_the_padded_image() -> None:
    for min_size in (0, 65):
        segmenter = tiny_segmenter(crf=None, min_size=min_size)
        for size in SIZES:
            assert segmenter.padded(noise(*size)).shape[2:] == segmenter.padded_size(size)
