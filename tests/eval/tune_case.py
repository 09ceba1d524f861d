"""A checkpoint of a tiny network on tiny scenes, with logits that know the truth a little."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import data
from data import VOID, CollageConfig, Sample
from eval.grid import SearchConfig
from eval.tune import GridOptions, TuneOptions
from models import CrfForm, Segmenter, SegmenterConfig
from runtime.checkpoint import save_checkpoint
from tests.eval.plain_networks import TINY

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
