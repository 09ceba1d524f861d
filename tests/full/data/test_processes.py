"""Reading in several processes, each of which takes seconds to start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from data import Augment, Collage, CollageConfig, FolderConfig, TrainStream, TransformConfig
from data.reading import map_files
from data.verify import to_json, verify
from tests.data.layouts import truncate, write_folder


def die_at_3(item: int) -> int:
    if item == 3:
        os._exit(9)
    return item


def test_results_keep_their_order() -> None:
    assert list(map_files(str, range(40), 2)) == [str(k) for k in range(40)]


def test_a_process_that_dies_ends_in_a_message() -> None:
    with pytest.raises(OSError, match=r"a process that read files died.*--workers 1"):
        list(map_files(die_at_3, range(5), 1))


def test_processes_verify_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path)
    truncate(tmp_path / "masks" / "n01.png")
    config = FolderConfig(tmp_path)
    here, there = (verify(config, ["train", "tune"], workers=workers) for workers in (0, 1))
    assert to_json(config, here) == to_json(config, there)


def test_a_worker_prepares_the_same_batches_and_leaves_no_trace() -> None:
    scenes = Collage(CollageConfig(size=32, num_train=10), "train")
    stream = TrainStream(scenes, Augment(TransformConfig(crop_size=24)), 4, seed=0)
    state, handler = torch.get_rng_state(), signal.getsignal(signal.SIGCHLD)
    iterator = stream.iterate(start_step=3, num_steps=5, num_workers=1)
    batches = [next(iterator)]
    assert signal.getsignal(signal.SIGCHLD) is handler
    batches += iterator
    assert torch.equal(torch.get_rng_state(), state)
    assert len(batches) == 5
    for step, batch in enumerate(batches, start=3):
        assert torch.equal(batch.images, stream.batch(step).images)
        assert torch.equal(batch.masks, stream.batch(step).masks)
