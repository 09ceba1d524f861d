from __future__ import annotations

import signal
from collections import Counter

import pytest
import torch

from data import (
    Augment,
    Batch,
    Collage,
    CollageConfig,
    CorruptSample,
    TrainStream,
    TransformConfig,
    Voc,
    VocConfig,
)
from tests.data.layouts import truncate

TEN = CollageConfig(size=32, num_train=10)
CROP = TransformConfig(scale=(0.5, 2.0), crop_size=24)


SCENES = Collage(TEN, "train")


def stream(batch_size: int = 4, seed: int = 0, **processes: int) -> TrainStream:
    return TrainStream(SCENES, Augment(CROP), batch_size=batch_size, seed=seed, **processes)


def same(a: Batch, b: Batch) -> bool:
    return a.names == b.names and torch.equal(a.images, b.images) and torch.equal(a.masks, b.masks)


def test_shape():
    batch = stream().batch(0)
    assert batch.images.shape == (4, 3, 24, 24)
    assert batch.images.dtype == torch.uint8
    assert batch.masks.shape == (4, 24, 24)
    assert batch.masks.dtype == torch.int64
    assert len(batch.names) == 4


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        stream(batch_size=0)
    with pytest.raises(ValueError, match="seed must be"):
        stream(seed=-1)
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        stream().batch(-1)


def test_images_of_unequal_size_need_a_crop_size(tiny_voc):
    dataset = Voc(VocConfig(root=tiny_voc.root), "train")
    whole = Augment(TransformConfig())
    with pytest.raises(ValueError, match="Set crop_size, or use batch_size 1"):
        TrainStream(dataset, whole, batch_size=2, seed=0).batch(0)
    one = TrainStream(dataset, whole, batch_size=1, seed=0)
    assert {one.batch(step).masks.shape for step in range(2)} == {(1, 5, 7), (1, 6, 4)}


def test_every_epoch_shows_every_sample_once():
    row = stream()
    names = [name for step in range(15) for name in row.batch(step).names]  # 6 epochs
    epochs = [names[k : k + 10] for k in range(0, 60, 10)]
    assert all(Counter(epoch) == Counter(SCENES.names) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_the_order_is_frozen():
    """Recorded once: a change of this order would make finished runs impossible to repeat."""
    assert [int(name[-2:]) for name in stream().batch(0).names] == [0, 8, 9, 5]
    assert [int(name[-2:]) for name in stream().batch(1000).names] == [9, 4, 7, 1]


def test_a_batch_is_a_pure_function_of_seed_and_step():
    one, other = stream(), stream()
    forwards = [one.batch(step) for step in range(6)]
    torch.manual_seed(3)
    backwards = [other.batch(step) for step in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_seeds_differ_in_order_and_augmentation():
    assert stream(seed=0).batch(0).names != stream(seed=1).batch(0).names
    one = TrainStream(Collage(CollageConfig(num_train=1), "train"), Augment(CROP), 1, seed=0)
    images = [one.batch(step).images for step in range(8)]  # the same scene in every epoch
    assert len({image.numpy().tobytes() for image in images}) == 8


def test_the_batch_size_does_not_change_the_samples():
    small = [stream(batch_size=2).batch(step) for step in (4, 5)]
    large = stream(batch_size=4).batch(2)
    assert torch.equal(torch.cat([batch.images for batch in small]), large.images)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_iterating_gives_the_batches_in_order_and_leaves_no_trace(num_workers):
    torch.manual_seed(0)
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    iterator = stream().iterate(start_step=3, num_steps=5, num_workers=num_workers)
    batches = [next(iterator)]
    assert signal.getsignal(signal.SIGCHLD) is handler
    batches += iterator
    assert torch.equal(torch.get_rng_state(), state)
    assert len(batches) == 5
    again = stream()
    assert all(same(batch, again.batch(3 + k)) for k, batch in enumerate(batches))


def test_no_steps_late_steps_and_batches_that_span_epochs():
    assert list(stream().iterate(start_step=3, num_steps=0, num_workers=0)) == []
    assert len(stream(batch_size=25).batch(1).names) == 25
    assert stream().batch(10**11).images.shape == (4, 3, 24, 24)  # places beyond 32 bits


def test_processes_together_see_what_one_process_sees():
    whole = stream(batch_size=6).batch(3)
    parts = [stream(3, rank=rank, num_processes=2).batch(3) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert parts[0].names + parts[1].names == whole.names
    with pytest.raises(ValueError, match="rank must be"):
        stream(3, rank=2, num_processes=2)


def test_an_unreadable_image_is_replaced_and_named(tiny_voc):
    config = VocConfig(root=tiny_voc.root)
    augment = Augment(TransformConfig(crop_size=4))
    broken = TrainStream(Voc(config, "train"), augment, 2, seed=0)
    truncate(tiny_voc.mask("b"))
    batch = broken.batch(0)
    assert batch.names == ("a", "a")
    assert list(batch.corrupt) == ["b"]
    assert "b.png cannot be decoded" in batch.corrupt["b"]
    assert same(batch, TrainStream(Voc(config, "train"), augment, 2, seed=0).batch(0))
    truncate(tiny_voc.mask("a"))
    with pytest.raises(CorruptSample, match=r"100 images drawn from .* are unreadable"):
        broken.batch(0)
