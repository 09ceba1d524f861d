"""Several processes on CPUs, over gloo: the same batches, losses and scores as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import data
from eval import processes
from eval.checkpoint import read_checkpoint
from tests.train.kill_loop import REPOSITORY, numbers_of
from train.__main__ import main as train_main
from train.loop import prepare_batch_norm
from train.step import of_all_processes


def torchrun(*arguments: str, count: int = 2) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), "-m", *arguments]
    # torchrun gives several processes a thread each and a single one all cores, on which the
    # network's sums run in another order.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=REPOSITORY, env=env, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(one process with batches of 4, two with batches of 2), each a joint run of 3 steps."""
    out = tmp_path_factory.mktemp("processes")
    one, two = out / "one", out / "two"
    torchrun("tests.train.child", str(one), "--fixed", "--steps=3", "--batch-size=4", count=1)
    torchrun("tests.train.child", str(two), "--fixed", "--steps=3", "--batch-size=2")
    return one, two


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(folders) -> None:
    """Sums in another order: 1e-5 is some hundred roundings of a loss of order one.

    With SGD: Adam makes whole steps of gradients that are nothing but rounding.
    """
    one, two = (numbers_of(folder) for folder in folders)
    assert [line.get("step") for line in one] == [line.get("step") for line in two]
    for mine, other in zip(one, two, strict=True):
        for name in ("loss", "loss_crf", "loss_unary"):
            if name in mine:
                assert mine[name] == pytest.approx(other[name], rel=1e-5)
        assert mine.keys() == other.keys()


@pytest.mark.slow
def test_two_processes_score_every_image_once(folders) -> None:
    """The scores of one process but for pixels whose two best labels are a rounding apart."""
    one, two = (
        json.loads((folder / "arms" / "joint-seed0" / "result.json").read_text())["metrics"]
        for folder in folders
    )
    for split in ("tune", "report"):
        names = [[image["name"] for image in scores[split]["images"]] for scores in (one, two)]
        assert names[0] == names[1]
        confusions = [torch.tensor(scores[split]["confusion"]) for scores in (one, two)]
        assert confusions[0].sum() == confusions[1].sum()
        assert (confusions[0] - confusions[1]).abs().sum() <= 0.002 * confusions[0].sum()


@pytest.mark.slow
def test_eval_run_in_two_processes_gives_the_same_numbers(folders, tmp_path) -> None:
    checkpoint = str(folders[0] / "arms" / "joint-seed0" / "checkpoint.pt")
    scores = [tmp_path / "one.json", tmp_path / "two.json"]
    for count, out in zip((1, 2), scores, strict=True):
        torchrun("eval", "run", checkpoint, "--out", str(out), count=count)
    assert json.loads(scores[0].read_text()) == json.loads(scores[1].read_text())


@pytest.mark.slow
def test_a_checkpoint_holds_the_random_numbers_of_every_process(folders) -> None:
    for folder, count in zip(folders, (1, 2), strict=True):
        checkpoint = read_checkpoint(folder / "arms" / "joint-seed0" / "checkpoint.pt")
        assert len(checkpoint["training"]["random"]) == count


def test_two_processes_do_not_resume_the_training_of_one(world, monkeypatch) -> None:
    world.train(world.segmenter())
    monkeypatch.setattr(processes, "num_processes", lambda: 2)
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


def test_a_rank_outside_the_processes_is_refused(world) -> None:
    with pytest.raises(ValueError, match=r"rank must be 0\.\.num_processes - 1, got 2 of 2"):
        data.TrainStream(world.dataset, world.stream().augment, 1, 0, rank=2, num_processes=2)


def test_trained_batch_norm_in_several_cpu_processes_is_refused(world, tiny, monkeypatch) -> None:
    monkeypatch.setattr(processes, "num_processes", lambda: 2)
    run = world.run("unary")
    with pytest.raises(ValueError, match=r"--start\.no-sync-batch-norm.*--model\.freeze"):
        prepare_batch_norm(world.segmenter(), tiny.fit, run)
    prepare_batch_norm(world.segmenter(), replace(tiny.fit, sync_batch_norm=False), run)


def test_one_process_needs_no_group() -> None:
    values = torch.tensor([1.0, 2.0])
    assert processes.total(values) is values
    assert torch.equal(processes.mean(values), values)
    assert torch.equal(processes.largest(values), values)
    assert processes.gathered("a") == ["a"]
    assert processes.from_first("a") == "a"
    assert processes.is_first()


def test_an_ablation_is_not_for_several_processes(monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    with pytest.raises(SystemExit, match="one process: start several with --shard I/N"):
        train_main(["ablate", "solver"])


def test_the_names_of_all_processes_are_told(monkeypatch) -> None:
    monkeypatch.setattr(processes, "gathered", lambda names: [names, ["from-another"]])
    assert of_all_processes(["mine"]) == ["mine", "from-another"]
