"""A checkpoint of a tiny network on tiny scenes, with logits that know the truth a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import data
from data import VOID, CollageConfig, Sample
from eval.checkpoint import save_checkpoint
from eval.tuning.logits import LogitsFolder, digest
from eval.tuning.options import GridOptions, TuneOptions
from models import CrfForm, DeepLabV3Config, Segmenter, SegmenterConfig, TimmConfig

SCENES = CollageConfig(size=65, num_train=1, num_tune=5, num_report=2)
FORM = CrfForm(
    kernel_weights="scalar",
    compatibility="potts",
    num_iterations=3,
    num_iterations_eval=3,
    normalization="after",
)
GRID = GridOptions(
    theta_gamma=(1.0,),
    spatial_weight=(1.0,),
    theta_alpha=(5.0, 10.0),
    theta_beta=(10.0,),
    bilateral_weight=(1.0, 4.0),
    rounds=1,
)


def network() -> Segmenter:
    torch.manual_seed(0)
    config = DeepLabV3Config(
        backbone=TimmConfig("mobilenetv2_035"), atrous_rates=(), head_channels=8
    )
    classes = len(data.build(SCENES, "tune").classes)
    return Segmenter(SegmenterConfig(classes, config)).eval()


def checkpoint(folder: Path) -> Path:
    path = folder / "checkpoint.pt"
    save_checkpoint(
        path, network(), data=data.config_to_dict(SCENES), arm="start", seed=0, step=0, training={}
    )
    return path


def hint(sample: Sample, num_classes: int) -> torch.Tensor:
    """Logits at every 16th pixel: the truth, with noise and a third of it wrong."""
    generator = torch.Generator().manual_seed(sum(sample.name.encode()))
    truth = sample.mask[::16, ::16].clone()
    truth[truth == VOID] = 0
    wrong = torch.rand(truth.shape, generator=generator) < 0.3
    truth[wrong] = torch.randint(0, num_classes, (int(wrong.sum()),), generator=generator)
    hot = torch.nn.functional.one_hot(truth, num_classes).permute(2, 0, 1).float()
    return (3 * hot + torch.randn(hot.shape, generator=generator))[None]


def options(folder: Path, **changes: object) -> TuneOptions:
    """A tuning of the checkpoint in a folder, the network's logits given as hints."""
    path = folder / "checkpoint.pt"
    if not path.is_file():
        checkpoint(folder)
    values = {"crf": FORM, "grid": GRID, "workers": 1, "out": folder / "out", **changes}
    found = TuneOptions(path, **values)  # type: ignore[arg-type]
    split = data.build(SCENES, "tune")
    logits = LogitsFolder(found.out / "logits", digest(path.read_bytes()))
    for sample in (split[k] for k in range(len(split))):
        logits.of(sample, lambda sample=sample: hint(sample, len(split.classes)))  # type: ignore[misc]
    return found


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
