"""The numbers of every network: parameters, operations, strides, receptive field."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch.utils.flop_counter import FlopCounterMode

from models import BUILDERS, Network
from models.describe import NUM_CLASSES, parameters, shell
from models.receptive_field import receptive_field
from runtime.provenance import provenance


@dataclass(frozen=True)
class NetworksOptions:
    """Count parameters and operations of every network, and measure its receptive field.

    Attributes:
        out: the JSON file to write.
        size: side of the image whose operations are counted, pixels.
        names: of `python -m models list`; all if none are given.
    """

    out: Path
    size: int = 513
    names: tuple[str, ...] = ()


def measure_networks(options: NetworksOptions) -> dict[str, Any]:
    """The content of a results file of the kind "networks".

    Raises:
        ValueError: there is no network of that name; suggests the nearest.
    """
    started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
    origin = provenance()
    names = options.names or tuple(BUILDERS)
    rows = [measured(name, options.size) for name in track(names, "networks")]
    return {
        "kind": "networks",
        "name": options.out.stem,
        **origin,
        "started": started,
        "classes": NUM_CLASSES,
        "size": options.size,
        "networks": rows,
        "wall_seconds": time.perf_counter() - began,
    }


def measured(name: str, size: int) -> dict[str, Any]:
    """One network's row."""
    network = shell(name)
    return {
        "name": name,
        "parameters": parameters(network),
        "flops": flops(network, size),
        "output_stride": network.output_stride,
        "logit_stride": network.logit_stride,
        "receptive_field": receptive_field(network),
    }


def flops(network: Network, size: int) -> int:
    """Floating-point operations of one forward pass: two for each multiplication and addition.

    Args:
        network: on the meta device, in eval mode.
        size: side of the image, pixels.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, size, size, device="meta"))
    return int(counter.get_total_flops())
