"""A step of joint training, without and with the CRF behind the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from eval.benchmark.builder import training_step
from eval.benchmark.gpu.clock import Clock, Entry, rounds
from eval.benchmark.problem import Problem
from models import CrfConfig, Segmenter, SegmenterConfig, builder
from models.describe import NUM_CLASSES


@dataclass(frozen=True)
class JointStep:
    """What is trained.

    Attributes:
        name: of the network.
        size: side of the images, pixels.
        batch: images, all of them the same photograph.
    """

    name: str = "deeplab_v3_resnet101"
    size: int = 513
    batch: int = 16


def measure_joint(
    step: JointStep, device: torch.device, clock: Clock, repeats: int
) -> list[dict[str, Any]]:
    """Seconds and peak bytes, the network in bfloat16 and the CRF in float32 behind it.

    The CRF is that of `CrfConfig`: 5 iterations at full resolution. BN is frozen.
    """
    # Noise would be no image: every pixel of it has the vertices of its lattice for itself.
    shape = (step.size, step.size)
    photograph = Problem(shape, NUM_CLASSES, (1.0, 1.0), 1.0, 1, step.batch, device=str(device))
    image = photograph.image.float()
    labels = torch.randint(0, NUM_CLASSES, (step.batch, *shape)).to(device)
    rows = []
    for crf in (None, CrfConfig()):
        config = SegmenterConfig(
            NUM_CLASSES, builder(step.name).config, crf, freeze_batch_norm=True
        )
        segmenter = Segmenter(config).to(device).train()
        run = training_step(segmenter, image, labels, torch.bfloat16)
        entry = Entry(clock, run)
        run()
        rows.append({
            **asdict(step), "crf": crf is not None, "seconds": rounds([entry], repeats)[0],
            "peak_bytes": entry.peak_bytes(),
        })  # fmt: skip
        del segmenter, run, entry
    return rows
