"""The training loop of one stage: batch, forward, loss, step, log, save, resume."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data import Batch, CorruptSample, SegmentationDataset, TrainStream
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from models import Segmenter, SegmenterOutput
from models.layers import batch_norms, synchronized
from runtime import distributed
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.progress import progress_bar
from train.crf_trace import crf_gradient_norms, crf_scalars
from train.losses import loss_terms
from train.stage import Stage, Trainable, only_learning, set_mode
from train.state import Stopped, StopRequest, TrainingState
from train.tracking import Tracker


class NonFiniteLoss(FloatingPointError):
    """Raise where a loss or a gradient is infinite or no number; the weights have not moved."""


class NonFiniteLogits(FloatingPointError):
    """Raise where the network's logits are infinite or no number, in this process or another.

    Args:
        here: in this process.
    """

    def __init__(self, *, here: bool) -> None:
        self.here = here
        super().__init__("the network's logits are not finite")


class WorkerDied(RuntimeError):
    """Raise where a process that loads data is gone, and its batch with it."""


def fit(
    segmenter: Segmenter,
    stream: TrainStream,
    stage: Stage,
    tracker: Tracker,
    *,
    resume: bool,
    tune: SegmentationDataset | None = None,
) -> int:
    """Train for `stage.fit.steps` steps; leave a checkpoint and the resulting weights.

    Args:
        segmenter: changed in place; what the stage does not learn stays as it is.
        stream: batches of `stage.fit.batch_size`, a function of the step alone.
        stage: what learns, the numbers, and where to write.
        tracker: takes a line every few steps.
        resume: go on from the stage's checkpoint if there is one.
        tune: the split that is scored every `stage.fit.eval_every` steps.

    Returns:
        The steps that were taken: fewer than `stage.fit.steps` where patience ended them.

    Raises:
        ValueError: the checkpoint to resume from is of another configuration.
        NonFiniteLoss: says at which step and on which images; nonfinite.pt holds the state.
        Stopped: SIGTERM or SIGINT came; the last step is saved.
        WorkerDied: a process that loads data is gone; the last step is saved.
        CorruptSample: more images are unreadable than the stage may skip; likewise.
    """
    torch.manual_seed(stage.seed + distributed.rank())
    segmenter.to(stage.device)
    with only_learning(segmenter, stage.learns, stage.fit.frozen):
        state = TrainingState(segmenter, stage, tracker.run_id)
        if resume and stage.checkpoint.is_file():
            state.restore(stage.checkpoint)
        if not state.finished:
            tracker.rewind(stage.first_step + state.step)
            Loop(state, stream, tracker, tune).run()
    segmenter.load_state_dict(state.result.state_dict())
    segmenter.eval()
    return state.step


class Loop:
    """The steps that are left of a stage.

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
        self.state, self.stage, self.config = state, state.stage, state.stage.fit
        self.tracker, self.tune = tracker, tune
        segmenter, config, how = state.segmenter, self.config, self.stage.execution
        prepare_batch_norm(segmenter, self.stage)
        if how.compile:
            network = segmenter.network
            network.outputs = torch.compile(network.outputs)  # type: ignore[method-assign]
        self.forward: nn.Module = TrainedForward(segmenter, self.stage.learns, config.precision)
        if distributed.num_processes() > 1:
            self.forward = DistributedDataParallel(self.forward)
        self.progress = progress_bar(detail=True)
        first, last = (n * config.accumulate for n in (state.step, config.steps))
        self.batches = Batches(
            stream.iterate(first, last - first, how.workers),
            self.stage.device,
            how.max_corrupt,
            state.corrupt,
            self.progress.console.print,
        )
        self.meter = Meter(config.batch_size * config.accumulate)

    def run(self) -> None:
        """Take the steps; save on the way, at the end, and when something ends them early."""
        state, path = self.state, self.stage.checkpoint
        name = f"{self.stage.arm}-seed{self.stage.seed}"
        set_mode(state.segmenter, self.stage)
        with self.progress, StopRequest(self.stage.device) as stop_request:
            task = self.progress.add_task(name, total=self.config.steps, detail="")
            while state.step < self.config.steps and not self.lost_patience():
                began = time.perf_counter()
                batches = self.fetch()
                waited = time.perf_counter() - began
                terms = self.train_step(batches)
                self.meter.add(time.perf_counter() - began, waited)
                self.log_when_due(terms)
                state.advance()
                detail = f"loss {terms['loss'].item():.4f}  {self.meter.speed:.1f} images/s"
                self.progress.update(task, completed=state.step, detail=detail)
                self.score_when_due()
                asked = stop_request()
                if asked or state.step % self.stage.execution.save_every == 0:
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

    def fetch(self) -> list[Batch]:
        """Load the batches of a step; save where they do not come, before anything has changed."""
        try:
            return [next(self.batches) for _ in range(self.config.accumulate)]
        except (WorkerDied, CorruptSample) as error:
            step = self.state.step
            # Processes save together: one that is alone in failing leaves it to the last time.
            if step == 0 or distributed.num_processes() > 1:
                raise
            self.state.save(self.stage.checkpoint)
            raise type(error)(
                f"{error} Step {step} is saved: --resume goes on from there."
            ) from error

    def train_step(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Take one optimiser step over batches whose gradients add up.

        Returns:
            The mean of each loss term over the batches of this process, and the lengths of the
            gradients before any cut, "gradient_norm" of the network and "gradient_norm_crf".

        Raises:
            NonFiniteLoss: names the images. No weight has moved.
        """
        learns, network = self.stage.learns, self.state.segmenter.network
        # Behind a frozen network the unary's loss teaches nothing.
        loss = self.config.loss if learns.network else replace(self.config.loss, unary=0.0)
        optimizer = self.state.optimizer
        optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        suspects: list[str] = []
        for batch in batches:
            # Processes average their gradients once, in the last backward.
            apart = isinstance(self.forward, DistributedDataParallel) and batch is not batches[-1]
            with self.forward.no_sync() if apart else nullcontext():  # type: ignore[operator]
                try:
                    output = self.forward(batch.images)
                except NonFiniteLogits as error:
                    raise self.nonfinite(str(error), batch.names if error.here else ()) from error
                # Where one part is frozen it has nothing to teach or to learn.
                both = batch.images if learns.network and learns.crf else None
                terms = loss_terms(output, batch.masks, loss, both)
                (terms["loss"] / len(batches)).backward()  # type: ignore[no-untyped-call]
            for name, value in terms.items():
                means[name] = means.get(name, 0.0) + value.detach() / len(batches)
            if not torch.isfinite(terms["loss"]):
                suspects += batch.names
        norms = gradient_norms(self.state.segmenter, learns)
        finite = torch.stack([torch.isfinite(value) for value in (means["loss"], *norms.values())])
        if distributed.largest((~finite.all()).int()):
            problem = f"the loss is {means['loss'].item():.4g}"
            if torch.isfinite(means["loss"]):
                lengths = (f"{name} is {value.item():.4g}" for name, value in norms.items())
                problem = f"{problem}, but {', '.join(lengths)}"
            raise self.nonfinite(problem, suspects, [n for batch in batches for n in batch.names])
        if learns.network and self.config.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(
                network.parameters(), self.config.clip_norm, norms["gradient_norm"]
            )
        optimizer.step()
        return means | norms

    def nonfinite(
        self, problem: str, suspects: Sequence[str], others: Sequence[str] = ()
    ) -> NonFiniteLoss:
        """Save the state to nonfinite.pt and describe the failure; every process must call.

        Args:
            problem: what is not finite.
            suspects: images of this process that it is certain of.
            others: images to name where no process is certain.
        """
        names, all_names = (
            [name for part in distributed.gathered(list(found)) for name in part]
            for found in (suspects, others)
        )
        path = self.stage.directory / "nonfinite.pt"
        self.state.save(path)
        return NonFiniteLoss(
            f"step {self.state.step + 1}: {problem} on the images "
            f"{', '.join(names or all_names)}: lower --fit.lr or --fit.crf-lr, or look at these "
            f"images. {path} holds the parameters before this step; trained BN statistics have "
            "seen its images."
        )

    def log_when_due(self, terms: dict[str, Tensor]) -> None:
        """Log a line of numbers every `log_every` steps, and after the last."""
        state, step = self.state, self.state.step + 1
        if step % self.stage.execution.log_every and step != self.config.steps:
            return
        means = distributed.mean(torch.stack([value.float() for value in terms.values()]))
        values: dict[str, float] = dict(zip(terms, means.tolist(), strict=True))
        values |= {f"lr/{group['name']}": group["lr"] for group in state.optimizer.param_groups}
        values |= crf_scalars(state.segmenter) | crf_gradient_norms(state.segmenter)
        values |= self.meter.read(self.stage.device)
        values["data/corrupt"] = sum(map(len, distributed.gathered(state.corrupt)))
        self.tracker.log(self.stage.first_step + step, values)

    def score_when_due(self) -> None:
        """Score the tune split every `eval_every` steps; save the best weights."""
        state, every = self.state, self.config.eval_every
        if self.tune is None or every == 0 or state.step % every:
            return
        metrics = scores(evaluate(state.result, self.tune, coarse_unaries(state.result, self.tune)))
        step = self.stage.first_step + state.step
        self.tracker.log_evaluation(step, state.result, self.tune, metrics)
        set_mode(state.segmenter, self.stage)
        miou = metrics["miou"] or 0.0  # none of the scored classes was seen or predicted
        if miou > state.best:
            state.best, state.without_gain = miou, 0
            state.save_result(self.stage.checkpoint.with_name("best.pt"))
        else:
            state.without_gain += 1

    def lost_patience(self) -> bool:
        """Tell if the tune split has not got better for too long."""
        return 0 < self.config.patience <= self.state.without_gain


# The forward pass, for one process or several.


class TrainedForward(nn.Module):
    """Compute both maps of logits of a batch; without gradient, and work, where nothing learns.

    A module because DistributedDataParallel wraps one: it averages the gradients of what
    this forward uses.

    Args:
        segmenter: network and CRF.
        learns: the parts that learn.
        precision: of the network; the CRF computes in float32.
    """

    def __init__(self, segmenter: Segmenter, learns: Trainable, precision: str) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.learns = learns
        self.precision = precision

    def forward(self, images: Tensor) -> SegmenterOutput:
        """Compute the logits of images (B, 3, H, W), RGB in 0..255.

        Raises:
            NonFiniteLogits: there is nothing that a CRF could refine; in every process.
        """
        image = images.float()
        half = torch.autocast(image.device.type, torch.bfloat16, self.precision == "bfloat16")
        with torch.set_grad_enabled(self.learns.network), half:
            unary, scales = self.segmenter.unary_and_scales(image)
        if not self.learns.crf:
            return SegmenterOutput(unary, None, scales)
        lost = ~torch.isfinite(unary).all()
        if distributed.largest(lost.int()):
            raise NonFiniteLogits(here=bool(lost))
        return SegmenterOutput(unary, self.segmenter.refine(unary, image), scales)


def prepare_batch_norm(segmenter: Segmenter, stage: Stage) -> None:
    """Let trained BN see the images of all processes.

    Raises:
        ValueError: that is wanted where it is not possible, on CPUs.
    """
    learns = stage.learns.network and any(
        p.requires_grad for norm in batch_norms(segmenter) for p in norm.parameters()
    )
    if distributed.num_processes() == 1 or not learns or not stage.fit.sync_batch_norm:
        return
    if stage.device.type != "cuda":
        raise ValueError(
            "batch normalisation cannot be synchronised between processes on CPUs: let every "
            "process take its own statistics (--start.no-sync-batch-norm, "
            "--fit.no-sync-batch-norm), or freeze it (--model.freeze-batch-norm, after the start)."
        )
    segmenter.network = synchronized(segmenter.network)


def gradient_norms(segmenter: Segmenter, learns: Trainable) -> dict[str, Tensor]:
    """Compute the Euclidean length of the gradient of network and CRF, where they learn."""
    parts: dict[str, nn.Module | None] = {
        "gradient_norm": segmenter.network if learns.network else None,
        "gradient_norm_crf": segmenter.crf if learns.crf else None,
    }
    return {
        name: torch.nn.utils.get_total_norm(
            [p.grad for p in part.parameters() if p.grad is not None]
        )
        for name, part in parts.items()
        if part is not None
    }


# Batches on the device, and what was corrupt among them.


class Batches(Iterator[Batch]):
    """Hand out batches, and count what could not be read.

    Args:
        source: the batches, on the CPU.
        device: where they go.
        max_corrupt: unreadable images before the run stops.
        corrupt: those that are known already, by name, with what is wrong; grows.
        announce: prints one line.
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
        """Load the next batch.

        Raises:
            WorkerDied: the process that was to bring it has ended.
            CorruptSample: more images are unreadable than the run may skip.
        """
        try:
            batch = next(self.source)
        except (RuntimeError, EOFError, OSError) as error:
            if not is_of_a_dead_worker(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise WorkerDied(
                f"a process that loads data died ({reason}). The system may have ended it for its "
                "memory: try fewer --workers."
            ) from error
        images = batch.images.to(self.device, non_blocking=True)
        masks = batch.masks.to(self.device, non_blocking=True)
        for name, problem in batch.corrupt.items():
            if name not in self.corrupt:
                self.corrupt[name] = problem
                self.announce(f"skipped {name}: {problem}")
        if len(self.corrupt) > self.max_corrupt:
            listed = "; ".join(f"{name}: {problem}" for name, problem in self.corrupt.items())
            raise CorruptSample(
                f"{len(self.corrupt)} images are unreadable, --max-corrupt allows "
                f"{self.max_corrupt}. Mend them, take them off the list, or allow more: {listed}"
            )
        return replace(batch, images=images, masks=masks)


def is_of_a_dead_worker(error: Exception) -> bool:
    """Tell if the loader noticed a death, or failed to fetch memory that its worker had shared."""
    if "DataLoader worker (pid" in str(error):
        return True
    # What a worker itself raises says in its message where it was caught.
    raised_inside = str(error).startswith("Caught ")
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not raised_inside


# Speed and memory, for the log.


class Meter:
    """Measure speed and waiting since the last reading.

    Args:
        images: of one step of one process.
    """

    def __init__(self, images: int) -> None:
        self.images = images * distributed.num_processes()
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        self.speed = 0.0  # images per second

    def add(self, seconds: float, waited: float) -> None:
        """Count a step that took `seconds`, of which it `waited` for data."""
        self.steps += 1
        self.seconds += seconds
        self.waited += waited
        self.speed = self.images * self.steps / self.seconds

    def read(self, device: torch.device) -> dict[str, float]:
        """Return images per second of all processes, share of time spent waiting, peak memory."""
        values = {
            "speed/images_per_second": self.speed,
            "speed/waiting_share": self.waited / self.seconds,
            "speed/peak_memory_mb": peak_memory(device) / 1e6,
        }
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        return values


def peak_memory(device: torch.device) -> int:
    """Return the largest memory so far, bytes: of the GPU if on one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
