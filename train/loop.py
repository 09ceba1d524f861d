"""The training loop of one arm: batches, steps, log lines and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from data import Batch, TrainStream
from eval.checkpoint import read_checkpoint, save_checkpoint
from models import Segmenter, SegmenterOutput
from train.arms import Arm
from train.differences import differences
from train.fit_config import FitConfig
from train.objective import loss_terms
from train.optim import build_optimizer, poly_schedule
from train.tracking import Tracker

LOG_EVERY = 10
SAVE_EVERY = 50


@dataclass(frozen=True)
class Run:
    """Which run this is, and where it writes.

    Attributes:
        arm: what learns.
        seed: of the batches and of dropout.
        directory: holds checkpoint.pt.
        data: the data set's config as a dictionary, for the checkpoint.
        workers: processes that load data.
    """

    arm: Arm
    seed: int
    directory: Path
    data: dict[str, Any]
    workers: int = 0

    @property
    def checkpoint(self) -> Path:
        """The file that the run leaves, and resumes from."""
        return self.directory / "checkpoint.pt"


def fit(
    segmenter: Segmenter,
    stream: TrainStream,
    config: FitConfig,
    run: Run,
    tracker: Tracker,
    *,
    resume: bool,
) -> None:
    """Train one arm for `config.steps` steps and leave its checkpoint.

    Args:
        segmenter: changed in place; what the arm does not learn stays as it is.
        stream: batches of `config.batch_size`, a function of the step alone.
        config: of this phase.
        run: names and places.
        tracker: takes a line every few steps.
        resume: go on from the run's checkpoint if there is one.

    Raises:
        ValueError: the checkpoint to resume from is of another configuration.
        FloatingPointError: the loss is not finite; says at which step and on which images.
    """
    torch.manual_seed(run.seed)
    for parameter in segmenter.network.parameters():
        parameter.requires_grad_(parameter.requires_grad and run.arm.network)
    optimizer = build_optimizer(segmenter, run.arm, config)
    schedule = poly_schedule(optimizer, config)
    first = 0
    if resume and run.checkpoint.is_file():
        first = restore(segmenter, optimizer, schedule, config, run)
    tracker.rewind(first)

    def save(step: int) -> None:
        training = {
            "config": asdict(config),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "random": torch.get_rng_state(),
        }
        save_checkpoint(
            run.checkpoint,
            segmenter,
            data=run.data,
            arm=run.arm.name,
            seed=run.seed,
            step=step,
            training=training,
        )

    set_mode(segmenter, run.arm)
    batches = stream.iterate(
        first * config.accumulate, (config.steps - first) * config.accumulate, run.workers
    )
    with progress_bar() as progress:
        task = progress.add_task(f"{run.arm.name}-seed{run.seed}", total=config.steps, detail="")
        progress.update(task, completed=first)
        for step in range(first, config.steps):
            try:
                terms = train_step(segmenter, batches, optimizer, config, run.arm)
            except FloatingPointError as error:
                raise FloatingPointError(f"step {step + 1}: {error}") from error
            if (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps:
                tracker.log(step + 1, terms | learning_rates(optimizer) | crf_values(segmenter))
            schedule.step()
            speed = progress.tasks[task].speed or 0.0
            images = speed * config.batch_size * config.accumulate
            detail = (
                f"loss {terms['loss']:.4f}  lr {optimizer.param_groups[0]['lr']:.1e}  "
                f"{images:.1f} images/s"
            )
            progress.update(task, advance=1, detail=detail)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
                save(step + 1)
    segmenter.eval()


def train_step(
    segmenter: Segmenter,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    config: FitConfig,
    arm: Arm,
) -> dict[str, float]:
    """One optimiser step over `config.accumulate` batches; the mean of each loss term."""
    optimizer.zero_grad(set_to_none=True)
    means: dict[str, float] = {}
    for _ in range(config.accumulate):
        batch = next(batches)
        output = forward(segmenter, batch, arm)
        # Behind a frozen network the unary's loss teaches nothing.
        loss = config.loss if arm.network else replace(config.loss, unary=0.0)
        terms = loss_terms(output, batch.masks, loss)
        if not torch.isfinite(terms["loss"]):
            raise FloatingPointError(
                f"the loss is {terms['loss'].item()} on the images {', '.join(batch.names)}: lower "
                "--fit.lr or --fit.crf-lr, or look at these images."
            )
        (terms["loss"] / config.accumulate).backward()  # type: ignore[no-untyped-call]
        for name, value in terms.items():
            means[name] = means.get(name, 0.0) + value.item() / config.accumulate
    if arm.network and config.clip_norm > 0:
        norm = torch.nn.utils.clip_grad_norm_(segmenter.network.parameters(), config.clip_norm)
        means["gradient_norm"] = norm.item()
    optimizer.step()
    return means


def forward(segmenter: Segmenter, batch: Batch, arm: Arm) -> SegmenterOutput:
    """Both maps of logits; without gradient, and without work, where nothing learns."""
    image = batch.images.float()
    with torch.set_grad_enabled(arm.network):
        unary, scales = segmenter.unary_and_scales(image)
    crf = segmenter.refine(unary, image) if arm.crf else None
    return SegmenterOutput(unary, crf, scales)


def set_mode(segmenter: Segmenter, arm: Arm) -> None:
    """Train mode for what learns: a frozen network keeps its BN and drops nothing."""
    segmenter.train()
    if not arm.network:
        segmenter.network.eval()


def restore(
    segmenter: Segmenter,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    config: FitConfig,
    run: Run,
) -> int:
    """Load the run's checkpoint; the step to go on from."""
    checkpoint = read_checkpoint(run.checkpoint)
    expected = {
        "fit": asdict(config),
        "segmenter": asdict(segmenter.config),
        "data": run.data,
    }
    found = {
        "fit": checkpoint["training"]["config"],
        "segmenter": checkpoint["segmenter"],
        "data": checkpoint["data"],
    }
    differing = differences(found, expected)
    if differing:
        raise ValueError(
            f"{run.checkpoint} is of another configuration: {'; '.join(differing[:5])}. "
            "Resume with the configuration it was written with, or give another --out."
        )
    segmenter.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["training"]["optimizer"])
    schedule.load_state_dict(checkpoint["training"]["schedule"])
    torch.set_rng_state(checkpoint["training"]["random"])
    return checkpoint["step"]


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of every group, by its name."""
    return {f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups}


@torch.no_grad()
def crf_values(segmenter: Segmenter) -> dict[str, float]:
    """A few numbers that show where the CRF is going."""
    crf = segmenter.crf
    if crf is None:
        return {}
    weights = crf.potentials.kernel_weight_matrices()
    return {
        **{f"crf/{name}_weight": w.diagonal().mean().item() for name, w in weights.items()},
        "crf/unary_scale": crf.log_unary_scale.exp().item(),
        "crf/output_scale": crf.log_output_scale.exp().item(),
    }


def progress_bar() -> Progress:
    """A bar with loss, lr, images/s, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
