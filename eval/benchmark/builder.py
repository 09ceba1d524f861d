"""One network, with and without a CRF behind it: seconds and peak memory, in this process.

A training step is a forward pass in train mode, the cross-entropy of every map of logits, the
backward pass and a step of SGD with momentum. BN is frozen, as it has to be for one image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.benchmark.memory import CLEAR, RESET_PEAK, return_freed_memory, status_bytes
from models import CrfConfig, Segmenter, SegmenterConfig, builder
from models.describe import NUM_CLASSES
from models.layers import subsample_labels

Task = Literal["inference", "training"]

SMALL = 65  # side of an image whose pass starts threads and libraries before anything is counted


@dataclass(frozen=True)
class Work:
    """What is measured, as another process can be told.

    Attributes:
        name: of the network.
        size: side of the image, pixels.
        repeats: rounds at most, after one that is dropped.
        seconds: of a task; no round begins later, and the only round of a slow one counts.
        threads: of PyTorch.
        device: "cpu" or "cuda".
    """

    name: str
    size: int
    repeats: int
    seconds: float
    threads: int
    device: str


def measure_builder(work: Work) -> Iterator[dict[str, Any]]:
    """A row for each of inference and training, without and with the CRF, as it is there.

    Peaks are of network, CRF, gradients, optimiser and activations: what the process takes
    beyond what it took before there was a network; none where the system does not count.
    """
    torch.set_num_threads(work.threads)
    device = torch.device(work.device)
    _ = F.conv2d(torch.rand(1, 3, SMALL, SMALL, device=device), torch.rand(8, 3, 3, 3).to(device))
    network = builder(work.name).config
    image = 255 * torch.rand(1, 3, work.size, work.size, device=device)
    labels = torch.randint(0, NUM_CLASSES, (1, work.size, work.size), device=device)
    return_freed_memory()
    before = status_bytes("VmRSS") if CLEAR.exists() else 0
    for crf in (None, CrfConfig()):
        config = SegmenterConfig(NUM_CLASSES, network, crf, freeze_batch_norm=True)
        segmenter = Segmenter(config).to(device)
        tasks: dict[Task, Callable[[], None]] = {
            "inference": inference(segmenter.eval(), image),
            "training": training_step(segmenter, image, labels),
        }
        for task, run in tasks.items():
            segmenter.train(task == "training")
            _reset_peak(device)
            seconds = timed(run, work, device)
            yield {
                "name": work.name, "crf": crf is not None, "task": task, "seconds": seconds,
                "peak_bytes": _peak(device, before),
            }  # fmt: skip
        del segmenter, tasks, run
        return_freed_memory()


def timed(run: Callable[[], None], work: Work, device: torch.device) -> list[float]:
    """Seconds of the rounds that count: the first is dropped where it is not the only one."""
    seconds: list[float] = []
    while len(seconds) < 1 + work.repeats and sum(seconds) < work.seconds:
        began = time.perf_counter()
        run()
        _finish(device)
        seconds.append(time.perf_counter() - began)
    return seconds[1:] or seconds


def inference(segmenter: Segmenter, image: Tensor) -> Callable[[], None]:
    """From RGB in 0..255 to logits of the same size."""

    @torch.inference_mode()
    def run() -> None:
        segmenter(image)

    return run


def training_step(
    segmenter: Segmenter, image: Tensor, labels: Tensor, precision: torch.dtype = torch.float32
) -> Callable[[], None]:
    """Forward, backward and update; below float32 the network computes under autocast."""
    optimizer = torch.optim.SGD(segmenter.parameters(), lr=1e-6, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(image.device.type, precision, precision != torch.float32):
            output = segmenter(image)
        maps = [output.unary] if output.crf is None else [output.unary, output.crf]
        loss = torch.stack([F.cross_entropy(logits, labels) for logits in maps]).sum()
        for scale in output.scales:
            loss = loss + F.cross_entropy(scale.logits, subsample_labels(labels, scale.stride))
        torch.autograd.backward(loss)
        optimizer.step()

    return run


def _finish(device: torch.device) -> None:
    """A GPU works while Python goes on."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text(RESET_PEAK)


def _peak(device: torch.device, before: int) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return status_bytes("VmHWM") - before if CLEAR.exists() else None
