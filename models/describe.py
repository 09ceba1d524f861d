"""Describe the networks in tables: all of them, or every convolution of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from rich.table import Table
from torch import nn

from models.network import Network
from models.registry import BUILDERS, Builder, build, builder

NUM_CLASSES = 21  # of PASCAL VOC, which all published counts are for


def shell(name: str) -> Network:
    """Build a network without memory, for its numbers: on the meta device, in eval mode."""
    with torch.device("meta"):
        return build(name, NUM_CLASSES).eval()


def parameters(network: nn.Module) -> int:
    """Count the parameters."""
    return sum(p.numel() for p in network.parameters())


def convolutions(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """List every convolution with its dotted name, in the order of construction."""
    return [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]


def list_table() -> Table:
    """Tabulate name, parameters, output stride and the authors' recipe of every network."""
    table = Table(title=f"networks, {NUM_CLASSES} classes")
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("output stride", justify="right")
    table.add_column("recipe of the authors")
    for name, entry in BUILDERS.items():
        network = shell(name)
        stride = str(network.output_stride)
        table.add_row(name, f"{parameters(network):,}", stride, str(entry.recipe))
    return table


def description(name: str) -> list[Table]:
    """Describe the numbers of a network, and stride and dilation of its every convolution.

    Raises:
        ValueError: there is no network of that name; suggests the nearest.
    """
    entry, network = builder(name), shell(name)
    return [summary(name, entry, network), layers(network)]


def summary(name: str, entry: Builder, network: Network) -> Table:
    """Tabulate the config of a network and what follows from it."""
    table = Table(title=name, show_header=False)
    table.add_row("parameters", f"{parameters(network):,} at {NUM_CLASSES} classes")
    table.add_row("of the backbone", f"{parameters(network.backbone):,}")
    table.add_row("output stride", str(network.output_stride))
    table.add_row("stride of the logits", str(network.logit_stride))
    table.add_row("exact sizes", f"{network.size_step} k + 1 pixels")
    table.add_row("recipe of the authors", str(entry.recipe))
    table.add_section()
    for key, value in flat(asdict(entry.config)):
        table.add_row(key, str(value))
    return table


def layers(network: nn.Module) -> Table:
    """Tabulate every convolution."""
    table = Table(title="convolutions")
    table.add_column("layer")
    for title in ("kernel", "stride", "dilation", "padding", "groups", "in", "out", "parameters"):
        table.add_column(title, justify="right")
    for name, layer in convolutions(network):
        numbers = [layer.stride, layer.dilation, layer.padding]
        table.add_row(
            name,
            "x".join(map(str, layer.kernel_size)),
            *(str(pair[0]) for pair in numbers),
            *(str(n) for n in (layer.groups, layer.in_channels, layer.out_channels)),
            f"{parameters(layer):,}",
        )
    return table


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten a nested dictionary to dotted names."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        found += flat(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return found
