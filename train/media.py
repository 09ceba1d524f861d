"""Pictures and tables for Weights & Biases: what an evaluation looks like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
import wandb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from crfrnn.compatibility import potts
from data import VOID, SegmentationDataset
from models import Segmenter
from train.crf_trace import evaluating

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
            picture = sample.image.permute(1, 2, 0).numpy()
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
    compatibility = potentials.compatibility().cpu()
    change = (compatibility - potts(len(names))).numpy()
    title = "compatibility (penalty), change from Potts"
    yield "crf/compatibility_map", wandb.Image(heat_map(title, change, names))
    if segmenter.config.crf.kernel_weights == "matrix":
        for name, matrix in potentials.kernel_weight_matrices().items():
            title = f"{name} kernel weights"
            picture = heat_map(title, matrix.cpu().numpy(), names)
            yield f"crf/{name}_weight_map", wandb.Image(picture)


def heat_map(title: str, matrix: NDArray[Any], names: tuple[str, ...]) -> Image.Image:
    """A matrix over the labels as a picture, white at 0; untied sets side by side.

    Args:
        title: what the matrix is.
        matrix: (L, L), or (T, L, L) for the sets of T iterations.
        names: of the L labels.
    """
    sets = matrix[None] if matrix.ndim == 2 else matrix
    side = max(3.0, 0.3 * len(names))  # inches; a label's name needs 0.3
    figure = Figure(figsize=(side * len(sets) + 2.0, side + 1.0), layout="constrained")
    figure.suptitle(title)
    limit = float(np.abs(sets).max()) or 1.0
    axes = figure.subplots(1, len(sets), squeeze=False)[0]
    for number, (axis, values) in enumerate(zip(axes, sets, strict=True)):
        shown = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
        if len(sets) > 1:
            axis.set_title(f"iteration {number + 1}")
    figure.colorbar(shown, ax=list(axes))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return Image.open(buffer)


def class_table(splits: Mapping[str, Mapping[str, float | None]]) -> wandb.Table:
    """IoU by class, a column for each split; a class that a split lacks is empty."""
    names = list(next(iter(splits.values())))
    rows = [[name, *(ious[name] for ious in splits.values())] for name in names]
    return wandb.Table(columns=["class", *splits], data=rows)


def row_table(rows: list[dict[str, float]]) -> wandb.Table:
    """Rows that have the same keys, at least one."""
    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
