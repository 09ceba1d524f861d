"""Write the numbers of a run: always to JSON lines, and to Weights & Biases."""

from __future__ import annotations

import json
import netrc
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
import wandb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from crfrnn.label_matrices import MatrixWeight, potts
from data import VOID, SegmentationDataset
from eval.metrics import SHOWN_WIDTHS
from models import Segmenter
from runtime.files import whole_file
from runtime.provenance import provenance
from train.crf_trace import evaluating, iteration_trace

PROJECT = "crfrnn"
INIT_TIMEOUT = 30.0  # seconds that a run waits for the server before it goes offline
NUM_IMAGES = 8

WandbMode = Literal["auto", "online", "offline", "disabled"]


class RunTracker:
    """Write metrics.jsonl and one W&B run; use as a context manager.

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
        id_file = directory / "wandb_id.txt"  # one W&B run for one arm, however often resumed
        if run_id is not None or not id_file.is_file():
            write_text(id_file, run_id or secrets.token_hex(4))
        origin = provenance()
        self.run = start_run(
            directory,
            mode,
            id=id_file.read_text(encoding="utf-8"),
            group=group,
            name=name,
            tags=list(tags),
            config={**config, "commit": origin["commit"], "dirty": origin["dirty"]},
        )

    def __enter__(self) -> RunTracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run.finish(exit_code=0 if kind is None else 1)

    @property
    def run_id(self) -> str | None:
        """Of the W&B run, which a resumed training continues."""
        return str(self.run.id)

    def rewind(self, step: int) -> None:
        """Drop the lines after a step, and one that was cut off when its writer died.

        A resumed run writes them again. W&B keeps the rows of both passes, at the same steps.
        """
        self._keep(lambda line: line.get("step", step + 1) <= step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars after a step, as one JSON line."""
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
        """Log scores, a table of the classes, pictures with masks, and the CRF, after a step.

        Args:
            step: of the training.
            segmenter: as it is now; its modes are left as they are.
            dataset: the split that was scored.
            metrics: its `eval.metrics.scores`.
            split: its name.
        """
        row = {"step": step, **scalars(split, metrics)}
        trace = iteration_trace(segmenter, dataset[0])
        ious = metrics["iou_per_class"]
        self._write({**row, f"{split}/iou_per_class": ious, "crf/iterations": trace})
        if not self.run.disabled:
            table = class_table({"iou": ious})
            shown = media(segmenter, dataset, trace)
            self.run.log({**row, f"{split}/iou_per_class": table, **shown})

    def log_scores(self, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Log the final scores, {split: `eval.metrics.scores`}: a line, a summary and a table."""
        self._keep(lambda line: "step" in line)  # not the result of a run that was cut off here
        values = {k: v for split, m in scores.items() for k, v in scalars(split, m).items()}
        self._write({"scores": values})
        if not self.run.disabled:
            self.run.summary.update(values)
            table = class_table({split: m["iou_per_class"] for split, m in scores.items()})
            self.run.log({**values, "iou_per_class": table})

    def log_images(self, segmenter: Segmenter, dataset: SegmentationDataset) -> None:
        """Log pictures and the CRF of a finished run."""
        trace = iteration_trace(segmenter, dataset[0])
        if trace:
            self._write({"crf/iterations": trace})
        if not self.run.disabled:
            self.run.log(media(segmenter, dataset, trace))

    def log_checkpoint(self, path: Path, aliases: Sequence[str]) -> None:
        """Log a checkpoint as a version of the W&B artifact named after group, arm and seed.

        Args:
            path: of the file. It is not copied: from here on it has to stay as it is.
            aliases: of this version, for example "best".

        Raises:
            FileNotFoundError: there is no such file.
        """
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
            lines = map(parse_line, self.path.read_text(encoding="utf-8").splitlines())
            write_text(self.path, "".join(json.dumps(x) + "\n" for x in lines if wanted(x)))

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class NoTracker:
    """Take every call of `RunTracker` and do nothing: for processes that are not the first."""

    run_id: str | None = None

    def __enter__(self) -> NoTracker:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in RunTracker.__dict__:
            raise AttributeError(name)
        return lambda *arguments, **options: None


Tracker = RunTracker | NoTracker


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def parse_line(line: str) -> dict[str, Any]:
    """Read a JSON line; return nothing of one that was cut off."""
    try:
        values: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return values


def scalars(split: str, metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Name the scores of a split: mIoU, pixel accuracy, and mIoU within each trimap band."""
    return {
        f"{split}/miou": metrics["miou"],
        f"{split}/pixel_accuracy": metrics["pixel_accuracy"],
        **{f"{split}/trimap_miou_{w}": metrics["trimap_miou"][w] for w in SHOWN_WIDTHS},
    }


# The run of Weights & Biases: its mode, and what happens without a server.


def start_run(directory: Path, mode: WandbMode, **options: Any) -> wandb.Run:
    """Begin or resume a W&B run; offline, with a warning, where the server cannot be reached.

    Every chart has the training's own `step` as its axis. W&B's internal step only grows and
    drops what is logged below it; so the steps that a resumed run takes again would be lost.

    Args:
        directory: gets W&B's own files, in wandb/.
        mode: "auto" logs online where a key is set and offline elsewhere.
        options: of `wandb.init`: id, group, name, tags, config.
    """

    def init(resolved: Literal["online", "offline", "disabled"] | None) -> wandb.Run:
        return wandb.init(
            **options,
            resume="allow",
            project=PROJECT,
            dir=str(directory),
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
            stacklevel=3,
        )
        run = init("offline")
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run


def wandb_mode(mode: WandbMode) -> Literal["online", "offline", "disabled"] | None:
    """Resolve "auto"; None leaves it to W&B, which reads WANDB_MODE itself."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return None
    return "online" if has_wandb_key() else "offline"


def has_wandb_key() -> bool:
    """Tell if W&B can log in: WANDB_API_KEY, or an entry in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


# Pictures and tables for Weights & Biases.


def media(
    segmenter: Segmenter, dataset: SegmentationDataset, trace: list[dict[str, float]]
) -> dict[str, Any]:
    """Draw images with masks and the CRF's matrices, and tabulate the CRF's iterations."""
    drawn = {**dict(pictures(segmenter, dataset)), **dict(heat_maps(segmenter, dataset.classes))}
    if trace:
        rows = [list(row.values()) for row in trace]
        drawn["crf/iterations"] = wandb.Table(columns=list(trace[0]), data=rows)
    return drawn


@torch.no_grad()
def pictures(segmenter: Segmenter, dataset: SegmentationDataset) -> Iterator[tuple[str, Any]]:
    """Draw the first 8 images of a split with true and predicted masks.

    Yields:
        The key "images/NAME", and the image at its own size with the masks "truth", "unary" and,
        with a CRF, "crf".
    """
    labels = {**dict(enumerate(dataset.classes)), VOID: "void"}
    with evaluating(segmenter):
        for index in range(min(NUM_IMAGES, len(dataset))):
            sample = dataset[index]
            output = segmenter(sample.image[None].to(segmenter.device))
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
def heat_maps(segmenter: Segmenter, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Draw the compatibility and, where they are matrices, the kernel weights, (L, L) each.

    Yields:
        The key "crf/compatibility_map" or "crf/NAME_weight_map", and a picture.
    """
    if segmenter.crf is None:
        return
    potentials, size = segmenter.crf.potentials, len(names)
    compatibility = potentials.compatibility().cpu().numpy()
    title = "compatibility (penalty), change from Potts"
    picture = heat_map(title, compatibility - potts(size).numpy(), names)
    yield "crf/compatibility_map", wandb.Image(picture)
    for name, matrix in potentials.kernel_weight_matrices().items():
        if isinstance(potentials.kernel_weights[name], MatrixWeight):
            picture = heat_map(f"{name} kernel weights", matrix.cpu().numpy(), names)
            yield f"crf/{name}_weight_map", wandb.Image(picture)


def heat_map(title: str, matrix: NDArray[Any], names: Sequence[str]) -> Image.Image:
    """Draw a matrix over the labels, blue below 0 and red above; untied sets side by side.

    Args:
        title: of the picture.
        matrix: (L, L), or (T, L, L) for the sets of T iterations.
        names: of the L labels.
    """
    sets = matrix[None] if matrix.ndim == 2 else matrix
    side = 3 + 0.3 * len(names)  # inches
    figure = Figure(figsize=(side * len(sets), side), layout="constrained")
    figure.suptitle(title)
    limit = max(float(np.abs(matrix).max()), 1e-6)
    axes = figure.subplots(1, len(sets), squeeze=False)[0]
    for axis, values in zip(axes, sets, strict=True):
        image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
    figure.colorbar(image, ax=list(axes))
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


def class_table(splits: Mapping[str, Mapping[str, float | None]]) -> wandb.Table:
    """Tabulate IoU by class, a column for each split; a class that a split lacks is empty."""
    names = list(next(iter(splits.values())))
    rows = [[name, *(ious[name] for ious in splits.values())] for name in names]
    return wandb.Table(columns=["class", *splits], data=rows)
