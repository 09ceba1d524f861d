"""Trainings in processes of their own: killed, with workers, or several together over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runtime.checkpoint import read_checkpoint
from tests.full.train.kill_loop import (
    REPOSITORY,
    checkpoint_of,
    finish,
    kill_once,
    numbers_of,
    same_run,
    steps_in,
)
from tests.train.world import FragileCollage, World, lines_of, tiny_recipe
from train.loop import WorkerDied


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path) -> None:
    """20 steps, and 10 steps, SIGKILL, resume. `make survive` kills at random moments."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole)
    assert kill_once(killed, wait_for_step=10, delay=0.0)
    assert 10 <= steps_in(checkpoint_of(killed)) < 20
    finish(killed)
    assert same_run(whole, killed) == []


@pytest.fixture
def world(tmp_path) -> World:
    return World(tiny_recipe(), tmp_path)


def test_a_worker_that_dies_leaves_the_last_step(world) -> None:
    order = [name for step in range(4) for name in world.stream().batch(step).names]
    deadly = world.dataset.names.index(order[6])  # in the fourth step
    dataset = FragileCollage(world.recipe.data, deadly=deadly)
    with pytest.raises(WorkerDied, match=r"process that loads data died.*fewer --workers") as died:
        world.train(world.segmenter(), dataset=dataset, workers=1)
    step = steps_in(world.folder / "run" / "checkpoint.pt")
    assert step > 0
    assert f"Step {step} is saved: --resume goes on" in str(died.value)


def test_a_worker_names_and_replaces_a_corrupt_image(world, capsys) -> None:
    dataset = FragileCollage(world.recipe.data, corrupt=(2, 5))
    world.train(world.segmenter(), dataset=dataset, workers=1, log_every=4)
    (line,) = lines_of(world.folder / "run")
    assert line["data/corrupt"] == 2
    assert capsys.readouterr().out.count("is truncated") == 2


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
    torchrun("tests.full.train.child", str(one), "--fixed", "--steps=3", "--batch-size=4", count=1)
    torchrun("tests.full.train.child", str(two), "--fixed", "--steps=3", "--batch-size=2")
    return one, two


def test_two_processes_have_the_losses_of_one_with_twice_the_batch(folders) -> None:
    """Sums in another order: 1e-5 is some hundred roundings of a loss of order one.

    With SGD: Adam makes whole steps of gradients that are nothing but rounding.
    """
    for mine, other in zip(*(numbers_of(folder) for folder in folders), strict=True):
        assert mine.keys() == other.keys()
        losses = [
            {k: v for k, v in m.items() if k.startswith(("loss", "step"))} for m in (mine, other)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


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


def test_eval_run_in_two_processes_gives_the_same_numbers(folders, tmp_path) -> None:
    checkpoint = str(folders[0] / "arms" / "joint-seed0" / "checkpoint.pt")
    scores = [tmp_path / "one.json", tmp_path / "two.json"]
    for count, out in zip((1, 2), scores, strict=True):
        torchrun("eval", "run", checkpoint, "--out", str(out), count=count)
    assert json.loads(scores[0].read_text()) == json.loads(scores[1].read_text())


def test_a_checkpoint_holds_the_random_numbers_of_every_process(folders) -> None:
    for folder, count in zip(folders, (1, 2), strict=True):
        checkpoint = read_checkpoint(folder / "arms" / "joint-seed0" / "checkpoint.pt")
        assert len(checkpoint["training"]["random"]) == count
