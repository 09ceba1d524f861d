"""A finished comparison made of nothing: synthetic scenes, and arms that miss by known amounts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from data.dataset import SegmentationDataset
from data.palette import voc_palette
from data.sample import Sample
from eval.metrics import Scorer, scores

# How far, in pixels, each arm's outlines wander from the truth: smaller is better.
BLUR = {"start": 5.0, "unary": 3.0, "post-hoc": 2.2, "crf-only": 2.0, "joint": 1.4}


class FakeScenes(SegmentationDataset):
    """Blobs of colour on a background, void around them, every image of another size."""

    def __init__(self, count: int = 8, size: int = 40, num_classes: int = 4) -> None:
        self.classes = ("background", *(f"class {i}" for i in range(1, num_classes)))
        self.scored = tuple(range(num_classes))
        self.palette = voc_palette()
        self.names = tuple(f"scene-{index:03d}" for index in range(count))
        self._size = size

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self):
            raise IndexError(index)
        generator = np.random.default_rng(index)
        shape = (self._size + 2 * index, self._size + 12)
        heights = [
            ndimage.gaussian_filter(generator.standard_normal(shape), self._size / 9)
            for _ in self.classes
        ]
        mask = np.argmax(heights, axis=0)
        colours = generator.integers(30, 226, size=(len(self.classes), 3))
        image = colours[mask] + generator.normal(0, 12, size=(*shape, 3))
        outline = ndimage.minimum_filter(mask, 3) != ndimage.maximum_filter(mask, 3)
        return Sample(
            name=self.names[index],
            image=torch.from_numpy(image.clip(0, 255).astype(np.uint8)).permute(2, 0, 1),
            mask=torch.from_numpy(np.where(outline, 255, mask).astype(np.int64)),
        )


@dataclass
class FakeRun:
    """What `compare` leaves behind."""

    run_dir: Path
    results: dict[str, Any]
    split: SegmentationDataset

    def without(self, arm: str) -> dict[str, Any]:
        """The results as if an arm had not been run."""
        kept = [run for run in self.results["runs"] if run["arm"] != arm]
        return {**self.results, "runs": kept}

    def swapped(self, first: str, second: str) -> dict[str, Any]:
        """The results with the metrics of two arms exchanged."""
        names = {first: second, second: first}
        runs = [{**run, "arm": names.get(run["arm"], run["arm"])} for run in self.results["runs"]]
        return {**self.results, "runs": runs}


def make_run(run_dir: Path, split: SegmentationDataset, seeds: Sequence[int] = (0, 1)) -> FakeRun:
    """Predict by displacing the truth, score, and write results.json and the predictions."""
    size = len(split.classes)
    runs = []
    for arm in BLUR:
        for seed in seeds[:1] if arm == "start" else seeds:
            scorer = Scorer(split.classes, split.scored)
            folder = run_dir / "predictions" / f"{arm}-seed{seed}"
            folder.mkdir(parents=True)
            for index, name in enumerate(split.names):
                mask = split[index].mask
                prediction = _displaced(mask.numpy(), BLUR[arm], 1000 * seed + index)
                scorer.update(name, torch.from_numpy(prediction), mask)
                image = Image.fromarray(prediction.astype(np.uint8))
                image.putpalette(split.palette.tobytes())
                image.save(folder / f"{name}.png")
            metrics = scores(scorer.counts())
            runs.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "wall_seconds": 40.0 + 10 * seed,
                    "network_steps": 0 if arm == "start" else 300,
                    "crf": _crf(size, arm, seed)
                    if arm in ("post-hoc", "crf-only", "joint")
                    else None,
                    "search": [_setting()] * 12 if arm in ("post-hoc", "joint") else None,
                    "metrics": {"tune": metrics, "report": metrics},
                }
            )
    results = {
        "name": "demo",
        "recipe": "collage",
        "command": "python -m train compare collage --out runs/demo",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "versions": {"torch": "2.15.0", "numpy": "2.3.0", "python": "3.12.1"},
        "machine": {"cpu": "a processor", "cores": 2, "gpu": None},
        "started": "2026-11-21T10:00:00",
        "wall_seconds": 423.0,
        "config": {"train": {"steps": 300, "lr": 0.01}, "crf": {"num_iterations": 5}},
        "data": {
            "classes": list(split.classes),
            "scored": list(split.scored),
            "splits": {"train": 400, "tune": 20, "report": len(split)},
        },
        "seeds": list(seeds),
        "network_steps": 300,
        "runs": runs,
    }
    (run_dir / "results.json").write_text(json.dumps(results))
    return FakeRun(run_dir, results, split)


def _displaced(mask: Any, distance: float, seed: int) -> Any:
    """Labels of the nearest labelled pixel, read at smoothly displaced places."""
    nearest = ndimage.distance_transform_edt(
        mask == 255, return_distances=False, return_indices=True
    )
    generator = np.random.default_rng(seed)
    rows, columns = np.indices(mask.shape)
    for axis in (rows, columns):
        wander = ndimage.gaussian_filter(generator.standard_normal(mask.shape), 4.0)
        axis += np.round(distance * wander / wander.std()).astype(int)
    rows, columns = rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)
    return mask[tuple(nearest)][rows, columns]


def _crf(size: int, arm: str, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    learned = 0.0 if arm == "post-hoc" else 1.0
    noise = learned * 0.3 * generator.standard_normal((3, size, size))
    return {
        "theta_alpha": 40.0 + 3 * learned,
        "theta_beta": 9.0,
        "theta_gamma": 3.0,
        "normalization": "symmetric",
        "num_iterations": 5,
        "kernel_weights": {
            "spatial": (3 * np.eye(size) + noise[0] * np.eye(size)).tolist(),
            "bilateral": (5 * np.eye(size) + noise[1]).tolist(),
        },
        "compatibility": (1 - np.eye(size) + noise[2]).tolist(),
    }


def _setting() -> dict[str, Any]:
    return {
        "theta_alpha": 40.0,
        "theta_beta": 9.0,
        "theta_gamma": 3.0,
        "spatial_weight": 3.0,
        "bilateral_weight": 5.0,
        "stage": "coarse",
        "miou": 0.5,
    }


@pytest.fixture(scope="session")
def fake_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """A comparison of five arms and two seeds on eight small scenes; not to be modified."""
    return make_run(tmp_path_factory.mktemp("fake-run"), FakeScenes())
