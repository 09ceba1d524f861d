"""A finished comparison made of nothing: synthetic scenes, and arms that miss by known amounts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from data.dataset import Sample, SegmentationDataset, voc_palette
from eval.metrics import Scorer, SplitCounts, harm_rate, scores

# How far, in pixels, each arm's outlines wander from the truth: smaller is better.
BLUR = {"start": 5.0, "unary": 3.0, "post-hoc": 2.2, "crf-only": 2.0, "joint": 1.4}


class FakeScenes(SegmentationDataset):
    """Blobs of colour on a background, void around them, every image of another size."""

    def __init__(self, count: int = 8) -> None:
        self.classes = ("background", "class 1", "class 2", "class 3")
        self.scored = (0, 1, 2, 3)
        self.palette = voc_palette()
        self.names = tuple(f"scene-{index:03d}" for index in range(count))

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self):
            raise IndexError(index)
        generator = np.random.default_rng(index)
        shape = (40 + 2 * index, 52)
        noise = generator.standard_normal((len(self.classes), *shape))
        heights = [ndimage.gaussian_filter(of_class, 40 / 9) for of_class in noise]
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

    def counts(self, arm: str, name: str = "counts-report") -> list[SplitCounts]:
        """The counts of an arm, seed by seed."""
        folders = sorted(self.run_dir.glob(f"arms/{arm}-seed*"))
        return [SplitCounts.load(folder / f"{name}.npz") for folder in folders]


def make_run(run_dir: Path, split: SegmentationDataset, seeds: Sequence[int] = (0, 1)) -> FakeRun:
    """Predict by displacing the truth, score, and write all files of a run folder but weights."""
    runs = [
        _arm(run_dir, split, arm, seed)
        for arm in BLUR
        for seed in (seeds[:1] if arm == "start" else seeds)
    ]
    config: dict[str, Any] = {"recipe": "collage", "data": {"size": 97}, "fit": {"steps": 300}}
    config |= {"seeds": list(seeds), "wandb": "auto"}
    origin = {
        "command": "python -m train compare collage --out runs/demo",
        "commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False,
        "versions": {"torch": "2.15.0"}, "started": "2026-11-21T10:00:00",
        "machine": {"cpu": "a processor", "cores": 2, "gpu": None},
    }  # fmt: skip
    splits = {"train": 400, "tune": 20, "report": len(split)}
    results = {
        **origin, "name": run_dir.name, "recipe": "collage", "wall_seconds": 423.0,
        "config": config, "seeds": list(seeds), "network_steps": 300, "runs": runs,
        "data": {"classes": list(split.classes), "scored": list(split.scored), "splits": splits},
    }  # fmt: skip
    (run_dir / "config.json").write_text(json.dumps(config))
    (run_dir / "origin.json").write_text(json.dumps([{**origin, "seconds": 423.0}]))
    (run_dir / "results.json").write_text(json.dumps(results))
    return FakeRun(run_dir, results, split)


def _arm(run_dir: Path, split: SegmentationDataset, arm: str, seed: int) -> dict[str, Any]:
    """Score and write one arm; the entry of results.json."""
    folder = run_dir / "arms" / f"{arm}-seed{seed}"
    counts = _counts(split, arm, seed, run_dir / "predictions" / folder.name)
    counts.save(folder / "counts-report.npz")
    result: dict[str, Any] = {
        "arm": arm, "seed": seed, "wall_seconds": 40.0 + 10 * seed,
        "network_steps": 0 if arm == "start" else 300, "crf": None, "search": None,
        "metrics": {"report": scores(counts)}, "before_crf": {}, "harm_rate": {},
    }  # fmt: skip
    lines: list[dict[str, Any]] = [{"step": 10, "loss": 1.0}]
    if arm in ("post-hoc", "crf-only", "joint"):
        before = _counts(split, "unary", seed, None)
        before.save(folder / "counts-report-before-crf.npz")
        result["crf"] = _crf(len(split.classes), arm, seed)
        result["before_crf"] = {"report": scores(before)}
        result["harm_rate"] = {"report": harm_rate(before, counts)}
        lines = _history(arm, seed)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return result


def _counts(split: SegmentationDataset, arm: str, seed: int, save_to: Path | None) -> SplitCounts:
    """What an arm's predictions count, with probabilities that know little of where it errs."""
    scorer = Scorer(split.classes, split.scored)
    for index, name in enumerate(split.names):
        mask = split[index].mask
        prediction = _displaced(mask.numpy(), BLUR[arm], 1000 * seed + index)
        noise = np.random.default_rng(index).normal(0.0, 0.5, (len(split.classes), *mask.shape))
        likely = np.arange(len(split.classes))[:, None, None] == prediction
        logits = torch.from_numpy(noise + 4.0 * likely)
        scorer.update(name, torch.from_numpy(prediction), mask, logits)
        if save_to is not None:
            save_to.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(prediction.astype(np.uint8))
            image.putpalette(split.palette.tobytes())
            image.save(save_to / f"{name}.png")
    return scorer.counts()


def _history(arm: str, seed: int) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl: a training that moves one width, and a trace of five iterations."""
    trained = [
        {"step": step, "crf/theta_alpha": 40.0 + 0.01 * step * (1 + seed), "crf/theta_beta": 9.0}
        | {f"crf/bilateral_weight_{k}": 5.0 - 0.001 * step for k in ("mean", "min", "max")}
        for step in range(10, 301, 10)
    ]
    energies = ("relaxed_energy", "discrete_energy", "kl", "largest_change")
    trace = [{"iteration": step, **dict.fromkeys(energies, 0.5**step)} for step in range(6)]
    return [*([] if arm == "post-hoc" else trained), {"crf/iterations": trace}]


def _displaced(mask: Any, distance: float, seed: int) -> Any:
    """Labels of the nearest labelled pixel, read at smoothly displaced places."""
    nearest = ndimage.distance_transform_edt(mask == 255, return_indices=True)[1]
    generator = np.random.default_rng(seed)
    rows, columns = np.indices(mask.shape)
    for axis in (rows, columns):
        wander = ndimage.gaussian_filter(generator.standard_normal(mask.shape), 4.0)
        axis += np.round(distance * wander / wander.std()).astype(int)
    rows, columns = rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)
    return mask[tuple(nearest)][rows, columns]


def _crf(size: int, arm: str, seed: int) -> dict[str, Any]:
    """A CRF's matrices: of post-hoc Potts and scalar weights, of the others moved by noise."""
    generator = np.random.default_rng(seed)
    learned = 0.0 if arm == "post-hoc" else 1.0
    noise = learned * 0.3 * generator.standard_normal((3, size, size))
    return {
        "theta_alpha": 40.0 + 3 * learned, "theta_beta": 9.0, "theta_gamma": 3.0,
        "normalization": "symmetric", "num_iterations": 5,
        "kernel_weights": {
            "spatial": (3 * np.eye(size) + noise[0] * np.eye(size)).tolist(),
            "bilateral": (5 * np.eye(size) + noise[1]).tolist(),
        },
        "compatibility": (1 - np.eye(size) + noise[2]).tolist(),
    }  # fmt: skip
