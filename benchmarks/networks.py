"""Count parameters and operations of every network, and time it with and without the CRF.

python -m benchmarks.networks --out results/networks.json

parameters, operations, strides    of the network alone, on the meta device
receptive field                    pixels in a row that a logit sees, by gradient
speed, peak                        of inference and a training step, each network in a process
                                   of its own; BN is frozen, as it has to be for one image
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure as m
from benchmarks.measure import Results
from eval.tables import ABSENT, markdown
from models import BUILDERS, CrfConfig, Network, Segmenter, SegmenterConfig, builder
from models.describe import NUM_CLASSES, parameters, shell
from models.layers import subsample_labels
from runtime.distributed import DeviceName, device_named

Task = Literal["inference", "training"]
TASKS: tuple[Task, ...] = ("inference", "training")


@dataclass(frozen=True)
class NetworksOptions(m.Options):
    """Count, measure and time every network.

    Attributes:
        names: of `python -m models list`; all by default.
        flops_size: side of the image whose operations are counted, pixels.
        speed: time the networks and measure their memory.
        size: side of the one image that is timed, pixels.
        repeats: timed rounds of each task at most, after one that is dropped.
        limit: seconds of a task; no round begins later, and the only round of a slow one counts.
        threads: of PyTorch.
        device: "auto" is the GPU where there is one.
    """

    names: tuple[str, ...] = ()
    flops_size: int = 513
    speed: bool = True
    size: int = 321
    repeats: int = 5
    limit: float = 1.0
    threads: int = 2
    device: DeviceName = "auto"

    def __post_init__(self) -> None:
        for name in ("flops_size", "size", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


def measure(options: NetworksOptions) -> Iterator[tuple[str, Any]]:
    """Yield a row for each network.

    Raises:
        ValueError: there is no network of that name; suggests the nearest.
    """
    names = [name for name in options.names or BUILDERS if builder(name)]
    yield "classes", NUM_CLASSES
    rows = []
    for name in track(names, "networks", console=Console(stderr=True)):
        speed = m.in_process(speeds, name, options) if options.speed else []
        rows.append(counts(name, options.flops_size) | {"speed": speed})
        yield "networks", rows


def counts(name: str, size: int) -> dict[str, Any]:
    """The numbers of a network that follow from its layers."""
    network = shell(name)
    return {
        "name": name,
        "parameters": parameters(network),
        "flops": flops(network, size),
        "output_stride": network.output_stride,
        "logit_stride": network.logit_stride,
    }


def flops(network: Network, size: int) -> int:
    """Count the operations of one forward pass: two for each multiplication and addition.

    Args:
        network: on the meta device, in eval mode.
        size: side of the image, pixels.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, size, size, device="meta"))
    return int(counter.get_total_flops())


# Speed.


def speeds(name: str, options: NetworksOptions) -> list[dict[str, Any]]:
    """Time inference and training, without and with the CRF, in a process that did nothing before.

    Peaks are of network, CRF, gradients, optimiser and activations: what the process takes beyond
    what it took before there was a network.
    """
    torch.set_num_threads(options.threads)
    device = device_named(options.device)
    image = 255 * torch.rand(1, 3, options.size, options.size, device=device)
    labels = torch.randint(0, NUM_CLASSES, (1, options.size, options.size), device=device)
    F.conv2d(image, torch.rand(8, 3, 3, 3, device=device))  # starts threads and libraries
    before, rows = m.resident_bytes(), []
    for crf in (None, CrfConfig()):
        config = SegmenterConfig(NUM_CLASSES, builder(name).config, crf, freeze_batch_norm=True)
        segmenter = Segmenter(config).to(device)
        tasks = {
            "inference": inference(segmenter, image),
            "training": training_step(segmenter, image, labels),
        }
        for task in TASKS:
            segmenter.train(task == "training")
            taken, peak = timed(tasks[task], options, device, before)
            rows.append(
                {"crf": crf is not None, "task": task, "seconds": taken, "peak_bytes": peak}
            )
        del segmenter, tasks
        m.resident_bytes()
    return rows


def timed(
    run: Callable[[], object], options: NetworksOptions, device: torch.device, before: int
) -> tuple[list[float], int | None]:
    """Time the rounds that count, and measure the peak of the first."""
    taken: list[float] = []
    peak = m.peak_bytes(lambda: taken.append(m.seconds(run, device)), device, before)
    while len(taken) < 1 + options.repeats and sum(taken) < options.limit:
        taken.append(m.seconds(run, device))
    return taken[1:] or taken, peak


def inference(segmenter: Segmenter, image: Tensor) -> Callable[[], object]:
    """From RGB in 0..255 to logits of the same size."""

    def run() -> object:
        with torch.inference_mode():
            return segmenter(image)

    return run


def training_step(
    segmenter: Segmenter, image: Tensor, labels: Tensor, precision: torch.dtype = torch.float32
) -> Callable[[], None]:
    """Forward, cross-entropy of every map of logits, backward, and a step of SGD with momentum.

    Below float32 the network computes under autocast.
    """
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


# Tables.

LEGEND = """\
GFLOPs: 10^9 operations of one forward pass in eval mode, two for each multiplication and addition
of convolutions."""

SPEED_LEGEND = """\
Milliseconds of one image and, in brackets, peak memory in GB, from RGB to logits of the same size.
A training step is forward, backward and update; BN is frozen. CRF: 5 iterations in training, 10 in
inference, full resolution. Peaks are of everything the network brings, weights included."""


def table(results: Results) -> str:
    """Write the counts of all networks and, where they were timed, their speed as Markdown."""
    config, rows = results["config"], results["networks"]
    titles = ["network", "parameters", "GFLOPs", "output stride", "logit stride"]
    lines = [
        [
            f"`{row['name']}`", f"{row['parameters']:,}", f"{row['flops'] / 1e9:,.1f}",
            str(row["output_stride"]), str(row["logit_stride"]),
        ]
        for row in rows
    ]  # fmt: skip
    side = config["flops_size"]
    remark = f"{results['classes']} classes; operations at {side} x {side} pixels"
    parts = [m.origin(results, remark), markdown(titles, lines), LEGEND]
    timed = [row for row in rows if row["speed"]]
    if timed:
        columns = [(task, crf) for task in TASKS for crf in (False, True)]
        titles = ["network", *(f"{task}{' + CRF' if crf else ''}" for task, crf in columns)]
        lines = []
        for row in timed:
            cells = {(own["task"], own["crf"]): _cell(own) for own in row["speed"]}
            lines.append([f"`{row['name']}`", *(cells.get(at, ABSENT) for at in columns)])
        parts += [
            f"One image of {config['size']} pixels a side, {config['threads']} threads, median of "
            f"up to {config['repeats']} rounds, of one that takes more than {config['limit']:g} s:",
            markdown(titles, lines),
            SPEED_LEGEND,
        ]
    return "\n\n".join(parts)


def _cell(row: Results) -> str:
    return f"{m.milliseconds(row['seconds'])} ({m.gigabytes(row['peak_bytes'])})"


if __name__ == "__main__":
    m.main(NetworksOptions, measure, table)
