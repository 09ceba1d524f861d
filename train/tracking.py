"""Where the numbers go: always to JSON lines, and to Weights & Biases.

One interface; both get the same numbers.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import wandb

from data import SegmentationDataset
from eval.metrics import SHOWN_WIDTHS
from eval.provenance import provenance
from models import Segmenter
from train.crf_trace import iteration_trace
from train.media import class_table, heat_maps, pictures, row_table
from train.tracker import Tracker
from train.wandb_run import WandbMode, start_run


@final
class RunTracker(Tracker):
    """metrics.jsonl and one W&B run.

    Pictures and tables are made where W&B takes them, and only at evaluations and at the end.

    Args:
        directory: gets metrics.jsonl, wandb_id.txt and W&B's own files.
        mode: "auto" logs online where a key is set and offline elsewhere.
        group: of the W&B run: the comparison or ablation.
        name: of the W&B run: arm and seed.
        config: everything that the run depends on; commit and dirty flag are added.
        tags: of the W&B run: recipe and arm.
        run_id: W&B run to go on with; the one of wandb_id.txt, or a new one, if not given.
    """

    def __init__(
        self,
        directory: Path,
        mode: WandbMode,
        group: str,
        name: str,
        config: Mapping[str, Any],
        *,
        tags: Sequence[str] = (),
        run_id: str | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "metrics.jsonl"
        self._artifact = re.sub(r"[^\w.-]", "-", f"{group}-{name}")
        origin = provenance()
        self.run = start_run(
            directory,
            mode,
            run_id=kept_run_id(directory, run_id),
            group=group,
            name=name,
            tags=tags,
            config={**config, "commit": origin["commit"], "dirty": origin["dirty"]},
        )

    @property
    def run_id(self) -> str:
        """Of the W&B run."""
        return str(self.run.id)

    def finish(self, *, succeeded: bool) -> None:
        """End the W&B run."""
        self.run.finish(exit_code=0 if succeeded else 1)

    def rewind(self, step: int) -> None:
        """Forget the lines after a step, and one that was cut off when its writer died.

        W&B keeps the rows of both passes, at the same steps.
        """
        self._keep(lambda line: line.get("step", step + 1) <= step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars after a step, one JSON line."""
        row = {"step": step, **values}
        self._write(row)
        self.run.log(row)

    def log_evaluation(
        self,
        step: int,
        segmenter: Segmenter,
        dataset: SegmentationDataset,
        metrics: Mapping[str, Any],
        *,
        split: str = "tune",
    ) -> None:
        """One JSON line with all numbers; scalars, tables, pictures and heat maps."""
        row = {"step": step, **scalars(split, metrics)}
        trace = iteration_trace(segmenter, dataset[0])
        ious = metrics["iou_per_class"]
        self._write({**row, f"{split}/iou_per_class": ious, "crf/iterations": trace})
        if self.run.disabled:
            return
        media: dict[str, Any] = {
            f"{split}/iou_per_class": class_table({"iou": ious}),
            **dict(pictures(segmenter, dataset)),
            **dict(heat_maps(segmenter, dataset.classes)),
        }
        if trace:
            media["crf/iterations"] = row_table(trace)
        self.run.log({**row, **media})

    def log_scores(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """One JSON line; a summary, scalars and a table."""
        self._keep(lambda line: "step" in line)  # not the result of a run that was cut off here
        values = {k: v for split, m in scores.items() for k, v in scalars(split, m).items()}
        self._write({"scores": values})
        if self.run.disabled:
            return
        self.run.summary.update(values)
        table = class_table({split: m["iou_per_class"] for split, m in scores.items()})
        self.run.log({**values, "iou_per_class": table})

    def log_images(self, segmenter: Segmenter, dataset: SegmentationDataset) -> None:
        """Pictures, heat maps, and the iterations of the CRF on the first image."""
        trace = iteration_trace(segmenter, dataset[0])
        if trace:
            self._write({"crf/iterations": trace})
        if self.run.disabled:
            return
        media = {
            **dict(pictures(segmenter, dataset)),
            **dict(heat_maps(segmenter, dataset.classes)),
        }
        if trace:
            media["crf/iterations"] = row_table(trace)
        self.run.log(media)

    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """A W&B artifact of type "model", named after group, arm and seed."""
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}: save it before it is logged.")
        if not self.run.disabled:
            artifact = wandb.Artifact(self._artifact, type="model")
            # "immutable": W&B reads the file where it is. A copy of every checkpoint in the
            # user's home directory is not ours to make.
            artifact.add_file(str(path), policy="immutable")
            self.run.log_artifact(artifact, aliases=list(aliases))

    def _keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the other lines, whole or not at all."""
        if self.path.is_file():
            lines = map(parsed, self.path.read_text(encoding="utf-8").splitlines())
            text = "".join(json.dumps(line) + "\n" for line in lines if wanted(line))
            write_whole(self.path, text)

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def kept_run_id(directory: Path, run_id: str | None) -> str:
    """One W&B run for one arm, however often it is resumed."""
    path = directory / "wandb_id.txt"
    if run_id is not None or not path.is_file():
        write_whole(path, run_id or secrets.token_hex(4))
    return path.read_text(encoding="utf-8")


def write_whole(path: Path, text: str) -> None:
    """Write all of it, or leave what was there."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def parsed(line: str) -> dict[str, Any]:
    """The values of a JSON line; none of one that was cut off."""
    try:
        values: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return values


def scalars(split: str, metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores of a split by key: mIoU, pixel accuracy, and mIoU within each trimap band."""
    return {
        f"{split}/miou": metrics["miou"],
        f"{split}/pixel_accuracy": metrics["pixel_accuracy"],
        **{f"{split}/trimap_miou_{w}": metrics["trimap_miou"][w] for w in SHOWN_WIDTHS},
    }
