"""The training loop: batch, forward, loss, step, log, save."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data import Batch, CorruptSample, SegmentationDataset, TrainStream
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from models import Segmenter, SegmenterOutput
from models.layers import batch_norms, synchronized
from runtime import distributed
from runtime.checkpoint import load_segmenter, read_checkpoint
from train.crf_trace import crf_gradient_norms, crf_scalars
from train.losses import loss_terms
from train.recipe import FitConfig
from train.stage import Arm, Run, only_learning, set_mode
from train.state import Stopped, StopRequest, TrainingState
from train.tracking import Tracker

# The batches of a run on its device, and what was corrupt among them.


class WorkerDied(RuntimeError):
    """A process that loads data is gone, and its batch with it."""


class Batches(Iterator[Batch]):
    """Hands out batches, and counts what could not be read.

    Args:
        source: the batches, on the CPU.
        device: where they go.
        max_corrupt: unreadable images before the run stops.
        corrupt: those that are known already, by name, with what is wrong; grows.
        announce: says one line.
    """

    def __init__(
        self,
        source: Iterator[Batch],
        device: torch.device,
        max_corrupt: int,
        corrupt: dict[str, str],
        announce: Callable[[str], None],
    ) -> None:
        self.source = source
        self.device = device
        self.max_corrupt = max_corrupt
        self.corrupt = corrupt
        self.announce = announce

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            WorkerDied: the process that was to bring it has ended.
            CorruptSample: more images are unreadable than the run may skip.
        """
        try:
            batch = next(self.source)
        except (RuntimeError, EOFError, OSError) as error:
            if not is_of_a_dead_worker(error):
                raise
            raise WorkerDied(
                f"a process that loads data died ({first_line(error)}). The system may "
                "have ended it for its memory: try fewer --workers."
            ) from error
        images = batch.images.to(self.device, non_blocking=True)
        masks = batch.masks.to(self.device, non_blocking=True)
        self._note(batch.corrupt)
        return replace(batch, images=images, masks=masks)

    def _note(self, corrupt: dict[str, str]) -> None:
        for name, problem in corrupt.items():
            if name in self.corrupt:
                continue
            self.corrupt[name] = problem
            self.announce(f"skipped {name}: {problem}")
        if len(self.corrupt) > self.max_corrupt:
            listed = "; ".join(f"{name}: {problem}" for name, problem in self.corrupt.items())
            raise CorruptSample(
                f"{len(self.corrupt)} images are unreadable, --max-corrupt allows "
                f"{self.max_corrupt}. Mend them, take them off the list, or allow more: {listed}"
            )


def first_line(error: Exception) -> str:
    """What an error says, or at least of which kind it is."""
    return (str(error) or type(error).__name__).splitlines()[0]


def is_of_a_dead_worker(error: Exception) -> bool:
    """Whether the loader noticed, or failed to fetch memory that its worker had shared."""
    if "DataLoader worker (pid" in str(error):
        return True
    # What a worker itself raises says in its message where it was caught.
    raised_inside = str(error).startswith("Caught ")
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not raised_inside


# How fast a training is, what it waits for, and what memory it takes.


class Meter:
    """Speed since it was last read.

    Args:
        images: of one step of one process.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.images_per_second = 0.0
        self._reset()

    def _reset(self) -> None:
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count what happens inside as one step."""
        began = time.perf_counter()
        yield
        self._steps += 1
        self._seconds += time.perf_counter() - began
        everywhere = self.images * distributed.num_processes()
        self.images_per_second = everywhere * self._steps / self._seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what happens inside, which is part of a step, as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def read(self, device: torch.device) -> dict[str, float]:
        """Images per second of all processes, share of time spent waiting, peak memory."""
        values = {
            "speed/images_per_second": self.images_per_second,
            "speed/waiting_share": self._waited / self._seconds,
            "speed/peak_memory_mb": peak_memory(device) / 1e6,
        }
        self._reset()
        return values


def peak_memory(device: torch.device) -> int:
    """The largest memory so far, bytes: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# One optimiser step: forward, loss, backward, and the checks before the weights move.


class NonFiniteLoss(FloatingPointError):
    """A loss or a gradient is infinite or no number; the weights have not moved."""


class NonFiniteLogits(FloatingPointError):
    """The network's logits are infinite or no number, here or in another process.

    Args:
        here: in this process.
    """

    def __init__(self, *, here: bool) -> None:
        self.here = here
        super().__init__("the network's logits are not finite")


class TrainedForward(nn.Module):
    """Both maps of logits of a batch; without gradient, and without work, where nothing learns.

    A module because DistributedDataParallel wraps one: it averages the gradients of what
    this forward uses.

    Args:
        segmenter: network and CRF.
        arm: what learns.
        precision: of the network; the CRF computes in float32.
    """

    def __init__(self, segmenter: Segmenter, arm: Arm, precision: str) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.arm = arm
        self.precision = precision

    def forward(self, images: Tensor) -> SegmenterOutput:
        """Logits of images (B, 3, H, W), RGB in 0..255.

        Raises:
            NonFiniteLogits: there is nothing that a CRF could refine; in every process.
        """
        image = images.float()
        half = torch.autocast(image.device.type, torch.bfloat16, self.precision == "bfloat16")
        with torch.set_grad_enabled(self.arm.network), half:
            unary, scales = self.segmenter.unary_and_scales(image)
        if not self.arm.crf:
            return SegmenterOutput(unary, None, scales)
        lost = ~torch.isfinite(unary).all()
        if distributed.largest(lost.int()):
            raise NonFiniteLogits(here=bool(lost))
        return SegmenterOutput(unary, self.segmenter.refine(unary, image), scales)


def over_processes(forward: TrainedForward) -> nn.Module:
    """The forward whose backward averages the gradients of all processes."""
    if distributed.num_processes() == 1:
        return forward
    return DistributedDataParallel(forward)


def train_step(
    forward: nn.Module,
    segmenter: Segmenter,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    config: FitConfig,
    arm: Arm,
) -> dict[str, Tensor]:
    """One optimiser step over the batches whose gradients it adds up.

    Returns:
        The mean of each loss term over the batches of this process, and the lengths of the
        gradients before any cut, "gradient_norm" of the network and "gradient_norm_crf".

    Raises:
        NonFiniteLoss: names the images. No weight has moved.
    """
    # Behind a frozen network the unary's loss teaches nothing.
    loss_config = config.loss if arm.network else replace(config.loss, unary=0.0)
    optimizer.zero_grad(set_to_none=True)
    means: dict[str, Tensor] = {}
    names: list[str] = []
    suspects: list[str] = []
    for batch in batches:
        with nullcontext() if batch is batches[-1] else without_averaging(forward):
            try:
                output = forward(batch.images)
            except NonFiniteLogits as error:
                found = of_all_processes(batch.names if error.here else ())
                raise NonFiniteLoss(f"{error} {on_images(found)}") from error
            terms = loss_terms(output, batch.masks, loss_config)
            (terms["loss"] / len(batches)).backward()  # type: ignore[no-untyped-call]
        for name, value in terms.items():
            means[name] = means.get(name, 0.0) + value.detach() / len(batches)
        names += batch.names
        if not torch.isfinite(terms["loss"]):
            suspects += batch.names
    norms = gradient_norms(segmenter, arm)
    finite = torch.stack([torch.isfinite(value) for value in (means["loss"], *norms.values())])
    if distributed.largest((~finite.all()).int()):
        found = of_all_processes(suspects) or of_all_processes(names)
        raise NonFiniteLoss(f"{describe_failure(means['loss'], norms)} {on_images(found)}")
    if arm.network and config.clip_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(
            segmenter.network.parameters(), config.clip_norm, norms["gradient_norm"]
        )
    optimizer.step()
    return means | norms


def without_averaging(forward: nn.Module) -> AbstractContextManager[None]:
    """The context in which a backward keeps its gradients to its own process."""
    if isinstance(forward, DistributedDataParallel):
        return forward.no_sync()
    return nullcontext()


def gradient_norms(segmenter: Segmenter, arm: Arm) -> dict[str, Tensor]:
    """Euclidean length of the gradient of network and CRF, where they learn."""
    parts: dict[str, nn.Module | None] = {
        "gradient_norm": segmenter.network if arm.network else None,
        "gradient_norm_crf": segmenter.crf if arm.crf else None,
    }
    return {
        name: torch.nn.utils.get_total_norm(
            [p.grad for p in part.parameters() if p.grad is not None]
        )
        for name, part in parts.items()
        if part is not None
    }


def describe_failure(loss: Tensor, norms: dict[str, Tensor]) -> str:
    """What is not finite in this process, or what is where another one has failed."""
    if not torch.isfinite(loss):
        return f"the loss is {loss.item()}"
    lengths = ", ".join(f"{name} is {value.item():.4g}" for name, value in norms.items())
    return f"the loss is {loss.item():.4g}, but {lengths}"


def of_all_processes(names: Sequence[str]) -> list[str]:
    """The names that every process has to tell."""
    return [name for found in distributed.gathered(list(names)) for name in found]


def on_images(names: Sequence[str]) -> str:
    """The end of the sentence that says what is not finite."""
    return (
        f"on the images {', '.join(names)}: lower --fit.lr or --fit.crf-lr, or look at these "
        "images."
    )


# The training loop of one phase: batches, steps, evaluations, log lines and checkpoints.


def fit(
    segmenter: Segmenter,
    stream: TrainStream,
    config: FitConfig,
    run: Run,
    tracker: Tracker,
    *,
    resume: bool,
    tune: SegmentationDataset | None = None,
) -> int:
    """Train one arm for `config.steps` steps, leave its checkpoint and the resulting weights.

    Args:
        segmenter: changed in place; what the arm does not learn stays as it is.
        stream: batches of `config.batch_size`, a function of the step alone.
        config: of this phase.
        run: names and places.
        tracker: takes a line every few steps.
        resume: go on from the run's checkpoint if there is one.
        tune: the split that is scored every `config.eval_every` steps.

    Returns:
        The steps that were taken: fewer than `config.steps` where patience ended them.

    Raises:
        ValueError: the checkpoint to resume from is of another configuration.
        NonFiniteLoss: says at which step and on which images; nonfinite.pt holds the state.
        Stopped: SIGTERM or SIGINT came; the last step is saved.
        WorkerDied: a process that loads data is gone; the last step is saved.
        CorruptSample: more images are unreadable than the run may skip; likewise.
    """
    torch.manual_seed(run.seed + distributed.rank())
    segmenter.to(run.device)
    with only_learning(segmenter, run.arm, config.frozen):
        state = TrainingState(segmenter, config, run, tracker.run_id)
        if resume and run.checkpoint.is_file():
            state.restore(run.checkpoint)
        if not state.finished:
            tracker.rewind(run.first_step + state.step)
            Fit(state, stream, tracker, tune).run()
    segmenter.load_state_dict(state.result.state_dict())
    segmenter.eval()
    return state.step


class Fit:
    """The steps that are left of a phase.

    Args:
        state: what is trained, and how far it is.
        stream: batches.
        tracker: takes a line every few steps.
        tune: the split that is scored on the way.
    """

    def __init__(
        self,
        state: TrainingState,
        stream: TrainStream,
        tracker: Tracker,
        tune: SegmentationDataset | None,
    ) -> None:
        self.state = state
        self.config = state.config
        self.place = state.run
        self.tracker = tracker
        self.tune = tune
        prepare_batch_norm(state.segmenter, self.config, self.place)
        if self.place.compile:
            network = state.segmenter.network
            network.outputs = torch.compile(network.outputs)  # type: ignore[method-assign]
        forward = TrainedForward(state.segmenter, self.place.arm, self.config.precision)
        self.forward = over_processes(forward)
        self.progress = progress_bar()
        self.batches = Batches(
            stream.iterate(
                state.step * self.config.accumulate,
                (self.config.steps - state.step) * self.config.accumulate,
                self.place.workers,
            ),
            self.place.device,
            self.place.max_corrupt,
            state.corrupt,
            self.progress.console.print,
        )
        self.meter = Meter(self.config.batch_size * self.config.accumulate)

    def run(self) -> None:
        """Take the steps; save on the way, at the end, and when something ends them early."""
        name = f"{self.place.arm.name}-seed{self.place.seed}"
        state, path = self.state, self.place.checkpoint
        self.set_mode()
        with self.progress, StopRequest(self.place.device) as stop_request:
            task = self.progress.add_task(name, total=self.config.steps, detail="")
            while state.step < self.config.steps and not self.lost_patience():
                terms = self.step()
                loss, speed = terms["loss"].item(), self.meter.images_per_second
                detail = f"loss {loss:.4f}  {speed:.1f} images/s"
                self.progress.update(task, completed=state.step, detail=detail)
                self.score_when_due()
                asked = stop_request()
                if asked or state.step % self.place.save_every == 0:
                    state.save(path)
                if asked:
                    raise Stopped(state.step, asked)
        if self.lost_patience():
            self.progress.console.print(
                f"stopped early after step {state.step}: the best weights on the tune split, "
                f"mIoU {state.best:.4f}, are kept"
            )
        if self.config.patience:
            state.take(load_segmenter(read_checkpoint(path.with_name("best.pt"))))
        state.finished = True
        state.save(path)

    def step(self) -> dict[str, torch.Tensor]:
        """One step, and its line if one is due."""
        state = self.state
        with self.meter.step():
            with self.meter.waiting():
                batches = self.fetch()
            terms = self.update(batches)
        step = state.step + 1
        if step % self.place.log_every == 0 or step == self.config.steps:
            values = over_all_processes(terms)
            values |= learning_rates(state.optimizer)
            values |= crf_scalars(state.segmenter) | crf_gradient_norms(state.segmenter)
            corrupt = sum(map(len, distributed.gathered(state.corrupt)))
            values |= self.meter.read(self.place.device) | {"data/corrupt": corrupt}
            self.tracker.log(self.place.first_step + step, values)
        state.advance()
        return terms

    def fetch(self) -> list[Batch]:
        """The batches of a step; saves where they do not come, before anything has changed."""
        try:
            return [next(self.batches) for _ in range(self.config.accumulate)]
        except (WorkerDied, CorruptSample) as error:
            step = self.state.step
            # Processes save together: one that is alone in failing leaves it to the last time.
            if step == 0 or distributed.num_processes() > 1:
                raise
            self.state.save(self.place.checkpoint)
            raise type(error)(
                f"{error} Step {step} is saved: --resume goes on from there."
            ) from error

    def update(self, batches: list[Batch]) -> dict[str, torch.Tensor]:
        """Move the weights, unless the loss says that this would lose them."""
        state = self.state
        try:
            return train_step(
                self.forward, state.segmenter, batches, state.optimizer, self.config, self.place.arm
            )
        except NonFiniteLoss as error:
            path = self.place.directory / "nonfinite.pt"
            state.save(path)
            raise NonFiniteLoss(
                f"step {state.step + 1}: {error} {path} holds the parameters before this step; "
                "trained BN statistics have seen its images."
            ) from error

    def score_when_due(self) -> None:
        """Score the tune split every `eval_every` steps; keep the best weights."""
        state, every = self.state, self.config.eval_every
        if self.tune is None or every == 0 or state.step % every:
            return
        counts = evaluate(state.result, self.tune, coarse_unaries(state.result, self.tune))
        found = scores(counts)
        step = self.place.first_step + state.step
        self.tracker.log_evaluation(step, state.result, self.tune, found)
        self.set_mode()
        miou = found["miou"] or 0.0  # none of the scored classes was seen or predicted
        if miou > state.best:
            state.best, state.without_gain = miou, 0
            state.save_result(self.place.checkpoint.with_name("best.pt"))
        else:
            state.without_gain += 1

    def lost_patience(self) -> bool:
        """Whether the tune split has not got better for too long."""
        return 0 < self.config.patience <= self.state.without_gain

    def set_mode(self) -> None:
        """Train mode for what learns."""
        set_mode(self.state.segmenter, self.place.arm, self.config.frozen)


def prepare_batch_norm(segmenter: Segmenter, config: FitConfig, run: Run) -> None:
    """Let trained BN see the images of all processes.

    Raises:
        ValueError: that is wanted where it is not possible, on CPUs.
    """
    learns = run.arm.network and any(
        p.requires_grad for norm in batch_norms(segmenter) for p in norm.parameters()
    )
    if distributed.num_processes() == 1 or not learns or not config.sync_batch_norm:
        return
    if run.device.type != "cuda":
        raise ValueError(
            "batch normalisation cannot be synchronised between processes on CPUs: let every "
            "process take its own statistics (--start.no-sync-batch-norm, "
            "--fit.no-sync-batch-norm), or freeze it (--model.freeze-batch-norm, after the start)."
        )
    segmenter.network = synchronized(segmenter.network)


def over_all_processes(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    """The mean of each term over the processes, as numbers."""
    means = distributed.mean(torch.stack([value.float() for value in terms.values()]))
    return dict(zip(terms, means.tolist(), strict=True))


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of every group, by its name."""
    return {f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups}


def progress_bar() -> Progress:
    """A bar with loss, images/s, elapsed and remaining time; silent but for the first process."""
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not distributed.is_first(),
    )
