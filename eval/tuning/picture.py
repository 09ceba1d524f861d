"""One image, ready to be measured under many settings.

Labels that the network holds possible nowhere in an image cannot win there. With Potts, one weight
per kernel and undamped mean field, a label l with q_l = 0 has

    logits_l = unary_l - sum_m w_m K_m 1,

because the others' messages add up to K_m 1. Such labels are left out of the loop, where
rows are short then, and put back at the end: the likelihood counts all labels.

On forty images of VOC's animals and three settings, a floor of 0.03 leaves 3.7 of 21 labels on
average and moves mIoU by less than 1e-5, trimap mIoU by 4e-5 and NLL by 1e-5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data import VOID, Sample
from eval.inference import image_of
from eval.metrics.boundary import Band, band_distance
from eval.tuning.filtered import Filtered, filtered
from eval.tuning.objective import Counts, Measured, likelihood_curve
from models import CrfConfig, Segmenter
from models.layers import shrink, stretch

LIKELIHOOD_STRIDE = 31  # of the labelled pixels: thousands of each image, and an odd step


@dataclass(frozen=True)
class Picture:
    """An image with what its scores depend on beside the setting.

    Attributes:
        name: of the image.
        image: (1, 3, H, W) uint8, RGB in 0..255.
        coarse: (1, k, h, w), the network's logits of the labels that are kept.
        kept: (k,) ids of these labels, and `rest` of the others, (L - k,).
        cells: (P,) truth * L of the labelled pixels; `labelled` their positions, (P,).
        in_band: (P,) whether each lies within the trimap band.
        sampled: positions whose likelihood counts, (S,).
        sampled_truth: (S,) columns of their labels in `kept` and `rest`, one after the other.
        sampled_rest: (S, L - k), the unary of the other labels.
    """

    name: str
    image: Tensor
    coarse: Tensor
    kept: Tensor
    rest: Tensor
    labelled: Tensor
    cells: Tensor
    in_band: Tensor
    sampled: Tensor
    sampled_truth: Tensor
    sampled_rest: Tensor


@torch.no_grad()
def prepare(
    segmenter: Segmenter,
    sample: Sample,
    coarse: Tensor,
    *,
    band: Band,
    width: int,
    floor: float,
    resolution: int,
) -> Picture:
    """An image that any number of settings can be measured on.

    Args:
        segmenter: whose network made `coarse`.
        sample: the image and its labels.
        coarse: (1, L, h, w), the network's logits.
        band: rule of the trimap, see `eval.trimap`.
        width: of its band, pixels.
        floor: labels whose probability is below it in all pixels are left out; 0: none.
        resolution: of the CRF.
    """
    image = image_of(sample, segmenter.device)
    unary = segmenter.enlarge(coarse.to(segmenter.device), image.shape[2:])
    most = unary.softmax(1).flatten(2).amax(2)[0]
    possible = most >= floor
    kept, rest = possible.nonzero()[:, 0], (~possible).nonzero()[:, 0]
    mask = sample.mask.flatten()
    labelled = (mask != VOID).nonzero()[:, 0]
    sampled = labelled[::LIKELIHOOD_STRIDE]
    column = torch.empty(len(possible), dtype=torch.int64, device=segmenter.device)
    column[torch.cat([kept, rest])] = torch.arange(len(possible), device=segmenter.device)
    settled = stretch(shrink(unary[:, rest], resolution), image.shape[2:]) if len(rest) else unary
    distance = torch.from_numpy(band_distance(sample.mask.numpy(), band)).flatten()
    device = segmenter.device
    return Picture(
        name=sample.name,
        image=sample.image[None].to(device),
        coarse=coarse.to(device)[:, kept],
        kept=kept,
        rest=rest,
        labelled=labelled.int().to(device),  # 32 bits: many images are kept
        cells=(mask[labelled] * len(possible)).int().to(device),
        in_band=(distance[labelled] <= width).to(device),
        sampled=sampled.to(device),
        sampled_truth=column[mask[sampled].to(device)],
        sampled_rest=settled[0, : len(rest)].flatten(1)[:, sampled.to(device)].t().contiguous(),
    )


@torch.no_grad()
def measure(
    segmenter: Segmenter, picture: Picture, settings: Sequence[CrfConfig]
) -> Iterator[tuple[CrfConfig, Measured]]:
    """Every setting in turn, those of the same widths together."""
    unary = segmenter.enlarge(picture.coarse, picture.image.shape[2:])
    for found in filtered(unary, picture.image.float(), settings):
        logits = stretch(found.logits, unary.shape[2:])
        yield found.setting, measured(picture, logits, rows(picture, found, logits))


@torch.no_grad()
def measure_network(segmenter: Segmenter, picture: Picture) -> Measured:
    """The network alone."""
    unary = segmenter.enlarge(picture.coarse, picture.image.shape[2:])
    sampled = unary[0].flatten(1)[:, picture.sampled].t()
    return measured(picture, unary, torch.cat([sampled, picture.sampled_rest], dim=1))


def rows(picture: Picture, found: Filtered, logits: Tensor) -> Tensor:
    """The CRF's logits of all labels at the sampled pixels: (S, L), kept ones first.

    Args:
        picture: the image.
        found: the CRF, bound to it.
        logits: (1, k, H, W), of the kept labels.
    """
    sampled = logits[0].flatten(1)[:, picture.sampled].t()
    if len(picture.rest) == 0:
        return sampled
    paid = stretch(found.paid, logits.shape[2:]).flatten()[picture.sampled]
    scale = found.crf.log_output_scale.exp()
    return torch.cat([sampled, scale * (picture.sampled_rest - paid[:, None])], dim=1)


def measured(picture: Picture, logits: Tensor, sampled: Tensor) -> Measured:
    """The counts of the kept labels' (1, k, H, W) logits, and the likelihood of (S, L) rows."""
    num_classes = len(picture.kept) + len(picture.rest)
    predicted = picture.kept[logits[0].argmax(0).flatten()[picture.labelled]]
    cells = picture.cells + predicted

    def count(chosen: Tensor) -> Counts:
        square = torch.bincount(chosen, minlength=num_classes**2).reshape(num_classes, num_classes)
        counts: Counts = square.cpu().numpy()
        return counts

    return Measured(
        counts=np.stack([count(cells), count(cells[picture.in_band])]),
        curve=likelihood_curve(sampled, picture.sampled_truth),
        pixels=len(picture.sampled),
    )
