"""What one of several processes sees, tells and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import data
from runtime import distributed
from train.__main__ import main as train_main
from train.loop import of_all_processes, prepare_batch_norm


def test_two_processes_do_not_resume_the_training_of_one(world, monkeypatch) -> None:
    world.train(world.segmenter())
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    with pytest.raises(ValueError, match="processes was 1, now 2"):
        world.train(world.segmenter(), resume=True)


def test_the_processes_of_a_step_see_what_one_would(world) -> None:
    whole = world.stream(batch_size=6)
    for step in (0, 1, 7):
        shares = [
            data.TrainStream(
                world.dataset, whole.augment, batch_size=2, seed=0, rank=rank, num_processes=3
            ).batch(step)
            for rank in range(3)
        ]
        images = torch.cat([batch.images for batch in shares])
        assert torch.equal(images, whole.batch(step).images)


def test_trained_batch_norm_in_several_cpu_processes_is_refused(world, tiny, monkeypatch) -> None:
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    run = world.run("unary")
    with pytest.raises(ValueError, match=r"--start\.no-sync-batch-norm.*--model\.freeze"):
        prepare_batch_norm(world.segmenter(), tiny.fit, run)
    prepare_batch_norm(world.segmenter(), replace(tiny.fit, sync_batch_norm=False), run)


def test_one_process_needs_no_group() -> None:
    values = torch.tensor([1.0, 2.0])
    assert distributed.total(values) is values
    assert torch.equal(distributed.mean(values), values)
    assert torch.equal(distributed.largest(values), values)
    assert distributed.gathered("a") == ["a"]
    assert distributed.from_first("a") == "a"
    assert distributed.is_first()


def test_an_ablation_is_not_for_several_processes(monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    with pytest.raises(SystemExit, match="one process: start several with --shard I/N"):
        train_main(["ablate", "solver"])


def test_the_names_of_all_processes_are_told(monkeypatch) -> None:
    monkeypatch.setattr(distributed, "gathered", lambda names: [names, ["from-another"]])
    assert of_all_processes(["mine"]) == ["mine", "from-another"]
