"""Which device a model runs on."""

from __future__ import annotations

import os
from typing import Literal

import torch
import torch.distributed as dist

DeviceName = Literal["auto", "cpu", "cuda"]


def device_named(name: DeviceName) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

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
