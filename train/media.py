"""Pictures and tables for Weights & Biases: what an evaluation looks like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
import wandb
from numpy.typing import NDArray
from PIL import Image

from crfrnn.compatibility import potts
from crfrnn.kernel_weights import MatrixWeight
from data import VOID, SegmentationDataset
from eval.report.figures.canvas import panels, style
from eval.report.figures.matrices import heat_map as draw_matrix
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
