"""What ends a training, and what is left of it: nothing that was saved is ever lost."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from data import Collage, CollageConfig, Sample
from runtime.checkpoint import read_checkpoint, save_checkpoint
from tests.train.world import FragileCollage, changed, lines_of, weights
from train.loop import Batches, NonFiniteLoss, WorkerDied
from train.state import Stopped, StopRequest, random_state, set_random_state, terminable


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """SIGINT as in a terminal: who starts tests in the background may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Hooked(Collage):
    """Calls a function with the name of every image of the training split before it is read."""

    def __init__(self, config: CollageConfig, hook: Callable[[str], object]) -> None:
        super().__init__(config, "train")
        self.hook = hook

    def __getitem__(self, index: int) -> Sample:
        self.hook(self.names[index])
        return super().__getitem__(index)


def goes_on_as_if_left_alone(world, folder: str) -> None:
    """To the weights and the lines of a training that nothing has ended."""
    whole, resumed = world.segmenter(), world.segmenter()
    world.train(whole, folder="whole", log_every=1)
    world.train(resumed, folder=folder, resume=True, log_every=1)
    assert changed(resumed, weights(whole)) == []
    assert lines_of(world.folder / folder) == lines_of(world.folder / "whole")


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_training_after_the_step_it_came_in(world, tiny, number) -> None:
    before = signal.getsignal(number)
    reads = count(1)

    def send(_: str) -> None:
        if next(reads) == 3:  # the first image of the second step
            os.kill(os.getpid(), number)

    dataset = Hooked(tiny.data, send)
    with pytest.raises(Stopped, match=rf"{number.name} after step 2, which is saved") as stopped:
        world.train(world.segmenter(), folder="parts", dataset=dataset, log_every=1)
    assert stopped.value.signal_number == number
    assert signal.getsignal(number) is before
    assert read_checkpoint(world.folder / "parts" / "checkpoint.pt")["step"] == 2
    goes_on_as_if_left_alone(world, "parts")


@pytest.mark.usefixtures("_interruptible")
def test_a_second_interrupt_does_not_wait_and_sigterm_between_phases_ends_in_order(world, tiny):
    dataset = Hooked(tiny.data, lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        world.train(world.segmenter(), dataset=dataset)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a program in the background
    with StopRequest(torch.device("cpu")) as stop_request:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop_request() == 0
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM between two phases"), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(world, monkeypatch) -> None:
    """A finite loss with a NaN behind it, injected in the third step."""
    model, steps = world.segmenter(), count(1)

    def poisoned(output, *_):
        slope = torch.sqrt(output.unary.sum() * 0)  # infinite
        return {"loss": (output.unary**2).mean() + (0 * slope if next(steps) == 3 else 0)}

    monkeypatch.setattr("train.loop.loss_terms", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"step 3: .*gradient_norm is nan.*train-.*nonfinite"):
        world.train(model, "unary", save_every=1)
    saved, failed = (
        read_checkpoint(world.folder / "run" / f"{name}.pt") for name in ("checkpoint", "nonfinite")
    )
    assert saved["step"] == 2
    parameters = [name for name, _ in model.named_parameters()]
    assert all(torch.equal(failed["model"][name], saved["model"][name]) for name in parameters)


def test_a_nan_in_a_batch_names_its_images_and_leaves_the_state(world, tiny, monkeypatch) -> None:
    """With three batches in a step, only the names of the one that is wrong."""
    original = Batches.__next__
    seen: list[tuple[str, ...]] = []

    def poisoned(self):
        batch = original(self)
        seen.append(batch.names)
        if len(seen) != 5:
            return batch
        return replace(batch, images=torch.full_like(batch.images, torch.nan, dtype=torch.float))

    monkeypatch.setattr(Batches, "__next__", poisoned)
    message = "step 2: the network's logits are not finite"
    with pytest.raises(NonFiniteLoss, match=message) as raised:
        world.train(world.segmenter(), config=replace(tiny.fit, accumulate=3))
    assert ", ".join(seen[4]) in str(raised.value)
    assert not any(name in str(raised.value) for name in seen[3] + seen[5] if name not in seen[4])
    assert read_checkpoint(world.folder / "run" / "nonfinite.pt")["step"] == 1


def test_a_corrupt_image_is_named_counted_and_replaced(world, tiny, capsys) -> None:
    dataset = FragileCollage(tiny.data, corrupt=(2, 5))
    world.train(world.segmenter(), dataset=dataset, log_every=4)
    (line,) = lines_of(world.folder / "run")
    assert line["data/corrupt"] == 2
    printed, names = capsys.readouterr().out, {dataset.names[2], dataset.names[5]}
    for name in names:
        assert printed.count(f"skipped {name}: {name}.jpg is truncated") == 1
    saved = read_checkpoint(world.folder / "run" / "checkpoint.pt")["training"]
    assert [of.keys() for of in saved["corrupt"]] == [names]
    dataset = FragileCollage(tiny.data, corrupt=(1, 2, 4, 6))
    with pytest.raises(ValueError, match=r"2 images are unreadable, --max-corrupt allows 1") as no:
        world.train(world.segmenter(), dataset=dataset, max_corrupt=1)
    assert str(no.value).count("is truncated") == 2


def test_a_dead_worker_leaves_the_last_step(world, tiny) -> None:
    """The full tier ends a real one."""
    order = [name for step in range(4) for name in world.stream().batch(step).names]

    def orphan(name: str) -> None:
        if name == order[6]:  # in the fourth step
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    with pytest.raises(WorkerDied, match=r"fewer --workers.*Step 3 is saved: --resume goes on"):
        world.train(world.segmenter(), dataset=Hooked(tiny.data, orphan), log_every=1)
    goes_on_as_if_left_alone(world, "run")


@contextmanager
def files_end_at(size: int):
    """No file of this process grows beyond `size` bytes: a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_nothing_that_was_saved(world, tmp_path) -> None:
    path, model = tmp_path / "checkpoint.pt", world.segmenter()

    def save(step: int) -> None:
        save_checkpoint(path, model, data={}, arm="joint", seed=0, step=step, training={})

    with files_end_at(100_000), pytest.raises(OSError, match="none was saved before"):
        save(1)
    save(1)
    assert path.stat().st_size > 200_000
    with files_end_at(100_000), pytest.raises(OSError, match="the one saved before is whole"):
        save(2)
    assert read_checkpoint(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_cannot_run_code(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    path = tmp_path / "checkpoint.pt"
    torch.save({"format": Evil()}, path)
    with pytest.raises(ValueError, match="is read with weights_only=True"):
        read_checkpoint(path)
    assert not (tmp_path / "evil").exists()


def test_the_random_numbers_of_every_library_go_on(tmp_path) -> None:
    def draw() -> list[float]:
        legacy = np.random.rand()  # noqa: NPY002 - the global generator is what is kept
        return [random.random(), float(legacy), torch.rand(()).item(), random.gauss(0, 1)]

    draw()
    torch.save(random_state(), tmp_path / "state.pt")
    expected = draw()
    draw()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == expected
