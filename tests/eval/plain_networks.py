"""Networks of known behaviour, checkpoints of random weights, photographs, and a case to tune."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import data
from data import VOID, CollageConfig, DataConfig, Sample, config_to_dict
from eval.grid import SearchConfig
from eval.tune import GridOptions, TuneOptions
from models import (
    CrfConfig,
    CrfForm,
    DeepLabV3Config,
    Network,
    Segmenter,
    SegmenterConfig,
    TimmConfig,
)
from runtime.checkpoint import save_checkpoint

LABELS = 3
TINY = DeepLabV3Config(
    backbone=TimmConfig("mobilenetv2_035"), atrous_rates=(), head_channels=8, dropout=0.0
)
CRF = CrfConfig(
    theta_alpha=8, theta_beta=10, num_iterations_eval=3, kernel_weights="scalar",
    compatibility="potts",
)  # fmt: skip


class Convolutions(Network):
    """Convolutions that together see `reach` pixels around each pixel; reach 0 is pointwise.

    Args:
        reach: pixels.
        stride: of the logits; they sit on every stride-th pixel.
    """

    def __init__(self, reach: int = 0, stride: int = 1) -> None:
        super().__init__("half", output_stride=stride)
        self.backbone = nn.Conv2d(3, LABELS, 2 * reach + 1, stride, reach)
        nn.init.normal_(self.backbone.weight, std=4 / (2 * reach + 1))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.backbone(self.prepare(image))
        return logits


def plain_segmenter(network: Network, crf: CrfConfig | None = None, min_size: int = 0) -> Segmenter:
    """A segmenter around one of these."""
    segmenter = Segmenter(SegmenterConfig(LABELS, TINY, crf, min_size=min_size))
    segmenter.network = network
    return segmenter.eval()


def tiny_segmenter(crf: CrfConfig | None = CRF, min_size: int = 0) -> Segmenter:
    """A real network of random weights."""
    return Segmenter(SegmenterConfig(LABELS, TINY, crf, min_size=min_size)).eval()


def noise(height: int, width: int, batch: int = 1) -> Tensor:
    """Images of noise, (B, 3, H, W) in 0..255."""
    return torch.randint(0, 256, (batch, 3, height, width)).float()


def tiny_checkpoint(
    path: Path, crf: CrfConfig | None = CRF, data: DataConfig | None = None
) -> Path:
    """Written with the same weights whatever the CRF."""
    torch.manual_seed(0)
    config = data or CollageConfig(size=33)
    classes = len(config.label_set().classes)
    segmenter = Segmenter(SegmenterConfig(classes, TINY, crf)).eval()
    # So that several classes win somewhere: random weights alone hardly move the logits.
    for parameter in segmenter.network.parameters():
        parameter.data *= 1.15
    of_data = config_to_dict(config)
    save_checkpoint(path, segmenter, data=of_data, arm="joint", seed=0, step=1, training={})
    return path


def write_photograph(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blobs of colour, (H, W, 3) uint8; a PNG, so that it is read as it is written."""
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return np.asarray(picture)


SCENES = CollageConfig(size=65, num_train=1, num_tune=5, num_report=2)
FORM = CrfForm(
    kernel_weights="scalar", compatibility="potts", num_iterations=3, num_iterations_eval=3,
    normalization="after",
)  # fmt: skip
GRID = GridOptions(
    theta_gamma=(1.0,), spatial_weight=(1.0,), theta_alpha=(5.0, 10.0), theta_beta=(10.0,),
    bilateral_weight=(1.0, 4.0), rounds=1,
)  # fmt: skip
SEARCH: SearchConfig = GRID.config(None)


def network() -> Segmenter:
    torch.manual_seed(0)
    classes = len(data.build(SCENES, "tune").classes)
    return Segmenter(SegmenterConfig(classes, TINY)).eval()


def hint(sample: Sample, num_classes: int) -> torch.Tensor:
    """Logits at every 16th pixel: the truth, with noise and a third of it wrong."""
    generator = torch.Generator().manual_seed(sum(sample.name.encode()))
    truth = sample.mask[::16, ::16].clone()
    truth[truth == VOID] = 0
    wrong = torch.rand(truth.shape, generator=generator) < 0.3
    truth[wrong] = torch.randint(0, num_classes, (int(wrong.sum()),), generator=generator)
    hot = torch.nn.functional.one_hot(truth, num_classes).permute(2, 0, 1).float()
    return (3 * hot + torch.randn(hot.shape, generator=generator))[None]


def hints() -> dict[str, torch.Tensor]:
    """The hints of all images that are searched on."""
    split = data.build(SCENES, "tune")
    samples = (split[k] for k in range(len(split)))
    return {sample.name: hint(sample, len(split.classes)).contiguous() for sample in samples}


def options(folder: Path, **changes: Any) -> TuneOptions:
    """A tuning of a new checkpoint in a folder, the network's logits given as hints."""
    path = folder / "checkpoint.pt"
    config = data.config_to_dict(SCENES)
    save_checkpoint(path, network(), data=config, arm="start", seed=0, step=0, training={})
    values = {"crf": FORM, "grid": GRID, "workers": 1, "out": folder / "out", **changes}
    chosen = TuneOptions(path, **values)
    chosen.out.mkdir(parents=True)
    made_by = {"checkpoint": hashlib.sha256(path.read_bytes()).hexdigest()[:32]}
    save_file(hints(), chosen.out / "logits.safetensors", metadata=made_by)
    return chosen


def journal(folder: Path) -> list[dict[str, Any]]:
    """Every setting that a tuning has scored, without what it took."""
    rows = map(json.loads, (folder / "settings.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
