"""Metrics of a run: JSON lines, and Weights & Biases."""

from __future__ import annotations

import json
import netrc
import os
import re
import secrets
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, final

import numpy as np
import torch
import wandb
from numpy.typing import NDArray
from PIL import Image

from crfrnn.label_matrices import MatrixWeight, potts
from data import VOID, SegmentationDataset
from eval.metrics import SHOWN_WIDTHS
from eval.report.figures import heat_map as draw_matrix
from eval.report.figures import panels, style
from models import Segmenter
from runtime.provenance import provenance
from train.crf_trace import evaluating, iteration_trace

# What a run has to tell, whoever listens.

Self = TypeVar("Self", bound="Tracker")  # typing's own is of Python 3.11


class Tracker(ABC):
    """Takes what a run has to tell. Use as a context manager."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(succeeded=kind is None)

    @property
    @abstractmethod
    def run_id(self) -> str | None:
        """Of the W&B run, which a run that is resumed goes on with."""

    @abstractmethod
    def finish(self, *, succeeded: bool) -> None:
        """Nothing more comes."""

    @abstractmethod
    def rewind(self, step: int) -> None:
        """Forget the lines after a step: a resumed run writes them again."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars after a step."""

    @abstractmethod
    def log_evaluation(
        self,
        step: int,
        segmenter: Segmenter,
        dataset: SegmentationDataset,
        metrics: Mapping[str, Any],
        *,
        split: str = "tune",
    ) -> None:
        """Scores, a table of the classes, pictures with masks, and the CRF, after a step.

        Args:
            step: of the training.
            segmenter: as it is now; its modes are left as they are.
            dataset: the split that was scored.
            metrics: its `eval.metrics.scores`.
            split: its name.
        """

    @abstractmethod
    def log_scores(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """The final scores, {split: `eval.metrics.scores`}; scalars and a table."""

    @abstractmethod
    def log_images(self, segmenter: Segmenter, dataset: SegmentationDataset) -> None:
        """Images of a split with true and predicted masks, and the CRF, of a finished run."""

    @abstractmethod
    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """Keep a checkpoint as a version of the run's artifact.

        Args:
            path: of the file. It is not copied: from here on it has to stay as it is.
            aliases: of this version, for example "best".

        Raises:
            FileNotFoundError: there is no such file.
        """


@final
class NoTracker(Tracker):
    """Nothing is kept: for the processes that are not the first."""

    @property
    def run_id(self) -> str | None:
        """None."""
        return None

    def finish(self, *, succeeded: bool) -> None:
        """Do nothing, as all of the following."""

    def rewind(self, step: int) -> None:
        """Nothing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def log_evaluation(
        self,
        step: int,
        segmenter: Segmenter,
        dataset: SegmentationDataset,
        metrics: Mapping[str, Any],
        *,
        split: str = "tune",
    ) -> None:
        """Nothing."""

    def log_scores(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Nothing."""

    def log_images(self, segmenter: Segmenter, dataset: SegmentationDataset) -> None:
        """Nothing."""

    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """Nothing."""


# A run of Weights & Biases: which mode it takes, and what becomes of it without a server.

PROJECT = "crfrnn"

INIT_TIMEOUT = 30.0  # seconds that a run waits for the server before it goes offline

WandbMode = Literal["auto", "online", "offline", "disabled"]


def start_run(
    directory: Path,
    mode: WandbMode,
    *,
    run_id: str,
    group: str,
    name: str,
    tags: Sequence[str],
    config: dict[str, Any],
) -> wandb.Run:
    """Begin or go on with a run; offline, with a warning, where the server cannot be had.

    Every chart has the training's own `step` as its axis. W&B's internal step only grows and
    drops what is logged below it; so the steps that a resumed run takes again would be lost.

    Args:
        directory: gets W&B's own files, in wandb/.
        mode: "auto" logs online where a key is set and offline elsewhere.
        run_id: the same one goes on with the same run.
        group: the comparison or ablation.
        name: arm and seed.
        tags: to filter by.
        config: everything that the run depends on.
    """

    def init(resolved: Literal["online", "offline", "disabled"] | None) -> wandb.Run:
        return wandb.init(
            id=run_id,
            resume="allow",
            project=PROJECT,
            group=group,
            name=name,
            tags=list(tags),
            dir=str(directory),
            config=config,
            allow_val_change=True,  # a run may be resumed at another commit
            mode=resolved,
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_TIMEOUT),
        )

    resolved = wandb_mode(mode)
    try:
        run = init(resolved)
    except wandb.Error as error:
        if resolved in ("offline", "disabled"):
            raise
        warnings.warn(
            f"no connection to Weights & Biases ({str(error).splitlines()[0]}): logging offline. "
            f"`wandb sync {directory}/wandb/offline-run-*` uploads it later.",
            RuntimeWarning,
            stacklevel=2,
        )
        run = init("offline")
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run


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


# Pictures and tables for Weights & Biases: what an evaluation looks like.

NUM_IMAGES = 8


@torch.no_grad()
def pictures(segmenter: Segmenter, dataset: SegmentationDataset) -> Iterator[tuple[str, Any]]:
    """Up to 8 images of a split with true and predicted masks: the same at any time, in any arm.

    Yields:
        The key "images/NAME", and the image at its own size with the masks "truth", "unary" and,
        with a CRF, "crf".
    """
    labels = {**dict(enumerate(dataset.classes)), VOID: "void"}
    device = next(segmenter.parameters()).device
    with evaluating(segmenter):
        for index in range(min(NUM_IMAGES, len(dataset))):
            sample = dataset[index]
            output = segmenter(sample.image[None].to(device))
            masks = {"truth": sample.mask, "unary": output.unary.argmax(1)[0]}
            if output.crf is not None:
                masks["crf"] = output.crf.argmax(1)[0]
            drawn = {
                name: {"mask_data": mask.cpu().numpy(), "class_labels": labels}
                for name, mask in masks.items()
            }
            picture = sample.pixels
            yield f"images/{sample.name}", wandb.Image(picture, masks=drawn, caption=sample.name)


@torch.no_grad()
def heat_maps(segmenter: Segmenter, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The compatibility and, where they are matrices, the kernel weights, (L, L) each.

    Yields:
        The key "crf/compatibility_map" or "crf/NAME_weight_map", and a picture.
    """
    if segmenter.crf is None or segmenter.config.crf is None:
        return
    potentials = segmenter.crf.potentials
    compatibility = potentials.compatibility().cpu().numpy()
    size = len(names)
    picture = heat_map(
        "compatibility (penalty)", compatibility, potts(size).numpy(), names, "Potts"
    )
    yield "crf/compatibility_map", wandb.Image(picture)
    for name, matrix in potentials.kernel_weight_matrices().items():
        if isinstance(potentials.kernel_weights[name], MatrixWeight):
            title = f"{name} kernel weights"
            zeros = np.zeros((size, size))
            picture = heat_map(title, matrix.cpu().numpy(), zeros, names, "zero")
            yield f"crf/{name}_weight_map", wandb.Image(picture)


def heat_map(
    title: str, matrix: NDArray[Any], centre: NDArray[Any], names: Sequence[str], centre_name: str
) -> Image.Image:
    """A matrix over the labels as the report draws it; untied sets side by side.

    Args:
        title: what the matrix is.
        matrix: (L, L), or (T, L, L) for the sets of T iterations.
        centre: (L, L) values that count as no change.
        names: of the L labels.
        centre_name: what `centre` is, as in "change from Potts".
    """
    sets = matrix[None] if matrix.ndim == 2 else matrix
    side = 200 + 20 * len(names)  # points; a label's name needs 20
    with style():
        figure, axes = panels(side * len(sets), side, 1, len(sets))
        for number, (axis, values) in enumerate(zip(axes, sets, strict=True)):
            words = title if len(sets) == 1 else f"{title}, iteration {number + 1}"
            draw_matrix(axis, words, values, centre, names, centre_name)
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
    return Image.open(buffer)


def class_table(splits: Mapping[str, Mapping[str, float | None]]) -> wandb.Table:
    """IoU by class, a column for each split; a class that a split lacks is empty."""
    names = list(next(iter(splits.values())))
    rows = [[name, *(ious[name] for ious in splits.values())] for name in names]
    return wandb.Table(columns=["class", *splits], data=rows)


def row_table(rows: list[dict[str, float]]) -> wandb.Table:
    """Rows that have the same keys, at least one."""
    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


# Where the numbers go: always to JSON lines, and to Weights & Biases.
#
# One interface; both get the same numbers.


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
