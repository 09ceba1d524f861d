"""The training loop of one phase: batches, steps, evaluations, log lines and checkpoints."""

from __future__ import annotations

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from data import Batch, CorruptSample, SegmentationDataset, TrainStream
from eval import processes
from eval.checkpoint import load_segmenter, read_checkpoint
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from models import Segmenter
from models.layers import batch_norms, synchronized
from train.batches import Batches, WorkerDied
from train.crf_trace import crf_gradient_norms, crf_scalars
from train.fit_config import FitConfig
from train.learning import only_learning, set_mode
from train.meter import Meter
from train.run import Run
from train.state import TrainingState
from train.step import NonFiniteLoss, TrainedForward, over_processes, train_step
from train.stopping import Stopped, StopRequest
from train.tracker import Tracker


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
    torch.manual_seed(run.seed + processes.rank())
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
            corrupt = sum(map(len, processes.gathered(state.corrupt)))
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
            if step == 0 or processes.num_processes() > 1:
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
    if processes.num_processes() == 1 or not learns or not config.sync_batch_norm:
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
    means = processes.mean(torch.stack([value.float() for value in terms.values()]))
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
        disable=not processes.is_first(),
    )
