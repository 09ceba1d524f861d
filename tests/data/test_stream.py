from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
import torch

import data
from data import Augment, Batch, Collage, CollageConfig, TrainStream, TransformConfig
from tests.data.layouts import truncate

CROP = TransformConfig(scale=(0.5, 2.0), crop_size=24)
SCENES = Collage(CollageConfig(size=32, num_train=10), "train")


def stream(batch_size: int = 4, seed: int = 0, **processes: int) -> TrainStream:
    return TrainStream(SCENES, Augment(CROP), batch_size=batch_size, seed=seed, **processes)


def stream_of(voc: Any, batch_size: int, **transforms: Any) -> TrainStream:
    dataset = data.build(data.VocConfig(root=voc.root), "train")
    return TrainStream(dataset, Augment(TransformConfig(**transforms)), batch_size, seed=0)


def same(a: Batch, b: Batch) -> bool:
    return a.names == b.names and torch.equal(a.images, b.images) and torch.equal(a.masks, b.masks)


def test_bad_arguments_are_refused():
    for arguments in ({"batch_size": 0}, {"seed": -1}, {"rank": 2, "num_processes": 2}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
            stream(**arguments)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        stream().batch(-1)


def test_images_of_unequal_size_need_a_crop_size(tiny_voc):
    with pytest.raises(ValueError, match="Set crop_size, or use batch_size 1"):
        stream_of(tiny_voc, 2).batch(0)
    one = stream_of(tiny_voc, 1)
    assert {one.batch(step).masks.shape for step in range(2)} == {(1, 5, 7), (1, 6, 4)}


def test_every_epoch_shows_every_sample_once_in_a_frozen_order():
    """Recorded once: a change of this order would make finished runs impossible to repeat."""
    row = stream()
    names = [name for step in range(15) for name in row.batch(step).names]  # 6 epochs
    epochs = [names[k : k + 10] for k in range(0, 60, 10)]
    assert all(Counter(epoch) == Counter(SCENES.names) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    for step, order in ((0, [0, 8, 9, 5]), (1000, [9, 4, 7, 1])):
        assert [int(name[-2:]) for name in stream().batch(step).names] == order
    assert stream(seed=1).batch(0).names != stream().batch(0).names


def test_a_batch_is_a_pure_function_of_seed_and_step():
    one, other = stream(), stream()
    steps = [*range(6), 10**11]  # a place beyond 32 bits
    forwards = [one.batch(step) for step in steps]
    assert {(b.images.shape, b.images.dtype) for b in forwards} == {((4, 3, 24, 24), torch.uint8)}
    assert {(b.masks.shape, b.masks.dtype) for b in forwards} == {((4, 24, 24), torch.int64)}
    torch.manual_seed(3)
    backwards = [other.batch(step) for step in reversed(steps)][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))
    # The same scene in eight epochs.
    alone = TrainStream(Collage(CollageConfig(num_train=1), "train"), Augment(CROP), 1, seed=0)
    assert len({alone.batch(step).images.numpy().tobytes() for step in range(8)}) == 8


def test_neither_the_batch_size_nor_the_number_of_processes_changes_the_samples():
    whole = stream(batch_size=6).batch(3)
    smaller = [stream(2).batch(step) for step in (9, 10, 11)]
    processes = [stream(2, rank=rank, num_processes=3).batch(3) for rank in range(3)]
    for parts in (smaller, processes):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert tuple(name for part in parts for name in part.names) == whole.names


def test_iterating_gives_the_batches_in_order_and_leaves_no_trace():
    """In this process; tests/full starts a worker."""
    state, again = torch.get_rng_state(), stream()
    batches = list(pickle.loads(pickle.dumps(stream())).iterate(3, 5, num_workers=0))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(same(b, again.batch(3 + k)) for k, b in zip(range(5), batches, strict=True))


def test_an_unreadable_image_is_replaced_and_named(tiny_voc):
    truncate(tiny_voc.mask("b"))
    batch = stream_of(tiny_voc, 2, crop_size=4).batch(0)
    assert batch.names == ("a", "a")
    assert list(batch.corrupt) == ["b"]
    assert "b.png cannot be decoded" in batch.corrupt["b"]
    assert same(batch, stream_of(tiny_voc, 2, crop_size=4).batch(0))
    truncate(tiny_voc.mask("a"))
    with pytest.raises(data.CorruptSample, match=r"100 images drawn from .* are unreadable"):
        stream_of(tiny_voc, 2, crop_size=4).batch(0)
