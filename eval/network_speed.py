"""Our DeepLabv3 beside torchvision's, the same layers, in turn in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet101

from models import DeepLabV3Config, ResNetConfig, Segmenter, SegmenterConfig
from runtime.provenance import provenance

OURS, PEER = "crfrnn models", "torchvision"
NUM_CLASSES = 21


@dataclass(frozen=True)
class NetworkSpeedOptions:
    """Time DeepLabv3 with ResNet-101 at output stride 8 beside torchvision's.

    Attributes:
        out: a JSON file to write, or none.
        size: side of the image, pixels.
        repeats: timed rounds over both, after one that is dropped.
        threads: that both use.
    """

    out: Path | None = None
    size: int = 513
    repeats: int = 7
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("size", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


def network_speed(options: NetworkSpeedOptions) -> dict[str, Any]:
    """Seconds of every round, and their ratio: from RGB in 0..255 to logits of the same size."""
    torch.set_num_threads(options.threads)
    image = torch.rand(1, 3, options.size, options.size) * 255
    networks = {OURS: ours(), PEER: peer()}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(1 + options.repeats):
            for name, network in networks.items():
                began = time.perf_counter()
                network(image)
                seconds[name].append(time.perf_counter() - began)
    kept = {name: values[1:] for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(kept[OURS], kept[PEER], strict=True)]
    return {
        "kind": "network_speed",
        **provenance(),
        "size": options.size,
        "seconds": kept,
        "ratio": statistics.median(ratios),
    }


def ours() -> Callable[[Tensor], Tensor]:
    """Our network with torchvision's options: rates as for stride 8, the old rate first."""
    backbone = ResNetConfig(depth=101, dilate_first=False)
    network = DeepLabV3Config(backbone=backbone, output_stride=8)
    return Segmenter(SegmenterConfig(NUM_CLASSES, network)).eval().unary


def peer() -> Callable[[Tensor], Tensor]:
    """torchvision's without the 3x3 convolution that it adds before the classifier."""
    network = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=NUM_CLASSES)
    pyramid, classifier = network.classifier[0], network.classifier[-1]
    network.classifier = nn.Sequential(pyramid, classifier)
    network = network.eval().to(memory_format=torch.channels_last)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def forward(image: Tensor) -> Tensor:
        normalized = (image / 255 - mean) / deviation
        output: dict[str, Tensor] = network(normalized.to(memory_format=torch.channels_last))
        return output["out"]

    return forward


def print_speed(results: dict[str, Any]) -> None:
    """Medians and their ratio, one line each."""
    console = Console()
    for name, values in results["seconds"].items():
        console.print(f"{name}: {statistics.median(values):.3f} s (median of {len(values)})")
    console.print(f"ratio, ours over torchvision's in the same round: {results['ratio']:.3f}")
