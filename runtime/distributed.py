"""Choose the device of a run, and let its processes talk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

# Which device a model runs on.

DeviceName = Literal["auto", "cpu", "cuda"]


def device_named(name: DeviceName) -> torch.device:
    """Choose the device of a name; "auto" is the GPU where there is one.

    Of the processes that `torchrun` starts on a machine, each takes the GPU of its local rank.

    Raises:
        ValueError: "cuda" where PyTorch sees no GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError(
            "--device cuda: PyTorch sees no GPU here (torch.cuda.is_available() is false). Pass "
            "--device cpu, or install a CUDA build of PyTorch."
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    if dist.is_torchelastic_launched():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda", torch.cuda.current_device())


# Several processes, one result: what `torchrun` starts, and what they tell each other.
#
# Without `torchrun` every function here does what one process needs: nothing. Sums run over int64
# or float64 where a count must be exact.


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the group that `torchrun` made, for the time of the context.

    Args:
        device: of this process; GPUs talk over NCCL, CPUs over gloo.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """Count the processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Tell if this process writes files and prints."""
    return rank() == 0


def total(values: Tensor) -> Tensor:
    """Sum over the processes; return the argument itself where there is one process."""
    if num_processes() == 1:
        return values
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def mean(values: Tensor) -> Tensor:
    """Average over the processes, in the dtype of the argument made floating point.

    A loss that is sum / mean(count) on every process has, after the mean of gradients that
    DistributedDataParallel takes, the gradient of sum / count over all of them.
    """
    return total(values) / num_processes()


def largest(values: Tensor) -> Tensor:
    """Take the largest over the processes, element by element."""
    if num_processes() == 1:
        return values
    found = values.detach().clone()
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return found


def gathered(value: Any) -> list[Any]:
    """Gather the values of all processes, by rank; a plain Python value, or tensors on the CPU."""
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """Return the value of the first process."""
    if num_processes() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def barrier() -> None:
    """Wait for the others."""
    if num_processes() > 1:
        dist.barrier()
