"""Where the numbers go: always to JSON lines, and to Weights & Biases.

One interface; both get the same numbers.
"""

from __future__ import annotations

import json
import netrc
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
import wandb

from data import VOID, SegmentationDataset
from models import Segmenter

NUM_IMAGES = 8

WandbMode = Literal["auto", "online", "offline", "disabled"]


class Tracker:
    """One run: scalars by step, pictures with masks, and a table.

    Use as a context manager; W&B's run ends with it.

    Args:
        directory: gets metrics.jsonl and W&B's own files.
        mode: "auto" logs online where a key is set and offline elsewhere.
        group: of the W&B run: the comparison.
        name: of the W&B run: arm and seed.
        config: everything that the run depends on.
    """

    def __init__(
        self, directory: Path, mode: WandbMode, group: str, name: str, config: dict[str, Any]
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "metrics.jsonl"
        self.run_id = self._run_id(directory)
        self.run = wandb.init(
            id=self.run_id,
            resume="allow",
            project="crfrnn",
            group=group,
            name=name,
            dir=str(directory),
            config=config,
            mode=wandb_mode(mode),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run.finish(exit_code=0 if kind is None else 1)

    @staticmethod
    def _run_id(directory: Path) -> str:
        """One W&B run for one arm, however often it is resumed."""
        path = directory / "wandb_id.txt"
        if not path.is_file():
            path.write_text(secrets.token_hex(4))
        return path.read_text()

    def rewind(self, step: int) -> None:
        """Forget the lines after a step: a resumed run writes them again."""
        if self.path.is_file():
            lines = [json.loads(line) for line in self.path.read_text().splitlines()]
            kept = [line for line in lines if line.get("step", step + 1) <= step]
            self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Scalars after a step, one JSON line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.run.log(values, step=step)

    def log_scores(self, scores: dict[str, Any]) -> None:
        """The final scores of a split: {split: metrics}; scalars and a per-class table."""
        scalars: dict[str, float] = {}
        for split, metrics in scores.items():
            scalars[f"{split}/miou"] = metrics["miou"]
            scalars[f"{split}/pixel_accuracy"] = metrics["pixel_accuracy"]
            for width, value in metrics["trimap_miou"].items():
                scalars[f"{split}/trimap_miou_{width}"] = value
        with self.path.open("a") as file:
            file.write(json.dumps({"scores": scalars}) + "\n")
        table = wandb.Table(
            columns=["class", *scores],
            data=[
                [name, *(metrics["iou_per_class"][name] for metrics in scores.values())]
                for name in next(iter(scores.values()))["iou_per_class"]
            ],
        )
        self.run.summary.update(scalars)
        self.run.log({**scalars, "iou_per_class": table})

    def log_images(self, segmenter: Segmenter, dataset: SegmentationDataset) -> None:
        """The first few images of a split with true and predicted masks: the same for every arm."""
        labels = {**dict(enumerate(dataset.classes)), VOID: "void"}
        for index in range(min(NUM_IMAGES, len(dataset))):
            sample = dataset[index]
            with torch.no_grad():
                logits = segmenter(sample.image[None]).logits
            masks = {
                "truth": {"mask_data": sample.mask.numpy(), "class_labels": labels},
                "prediction": {"mask_data": logits.argmax(1)[0].numpy(), "class_labels": labels},
            }
            picture = sample.image.permute(1, 2, 0).numpy()
            image = wandb.Image(picture, masks=masks, caption=sample.name)
            self.run.log({f"images/{sample.name}": image})


def wandb_mode(mode: WandbMode) -> Literal["online", "offline", "disabled"] | None:
    """What "auto" means here; None leaves it to W&B, which reads WANDB_MODE itself."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return None
    return "online" if has_wandb_key() else "offline"


def has_wandb_key() -> bool:
    """Whether W&B can log in: WANDB_API_KEY, or an entry in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = "api.wandb.ai"
    try:
        return netrc.netrc().authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
